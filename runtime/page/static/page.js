"use strict";

// The device sends the picture as JPEG and the labels as PNG; they are blended here, so opacity and
// class toggles cost it nothing. The next message is asked for when the last one is drawn: a slow
// browser gets fewer pictures and never an old one. Pause, Record and Snapshot act on this page
// alone.

const element = (id) => document.getElementById(id);
const canvas = element("picture");
const context = canvas.getContext("2d", { willReadFrequently: true });
const labelCanvas = document.createElement("canvas");
const labelContext = labelCanvas.getContext("2d", { willReadFrequently: true });
const HISTORY = 240;
const TOKEN_NEEDED = "token needed";
const CHART_TOP = 20; // of its height, for the text above the curve
const history = { age: [], infer: [] };
const shown = [];
let facts = null;
let last = null;
let paused = false;
let recorder = null;
let stream = null; // name of the chosen one; null for the first
let socket = null;
let generation = 0;

function text(id, value) { element(id).textContent = value; }

function setState(state) {
  const badge = element("state");
  badge.textContent = state;
  badge.className = `state ${state === TOKEN_NEEDED ? "disconnected" : state}`;
}

const asked = (path) => (stream === null ? path : `${path}?source=${encodeURIComponent(stream)}`);

async function begin() {
  const mine = ++generation; // a later choice of a source makes this one void
  let found;
  try {
    const response = await fetch(asked("facts"));
    if (response.status === 404) stream = null; // the device was started with other sources
    if (response.status === 403) throw new Error(TOKEN_NEEDED);
    found = await response.json();
  } catch (error) {
    if (mine !== generation) return;
    setState(error.message === TOKEN_NEEDED ? TOKEN_NEEDED : "disconnected");
    setTimeout(() => { if (mine === generation) begin(); }, 1000);
    return;
  }
  if (mine !== generation) return;
  facts = found;
  text("source", facts.source);
  const golden = facts.backend.golden_agreement;
  const agreement = golden === null ? "no golden frame" : `golden frame ${(100 * golden).toFixed(2)} %`;
  const { library, provider, precision } = facts.backend;
  text("backend", `${library}, ${provider}, ${precision}, ${agreement}`);
  listStreams();
  listClasses();
  connect();
}

function listStreams() {
  const list = element("streams");
  list.hidden = facts.streams.length < 2;
  list.replaceChildren(...facts.streams.map((name) => new Option(name, name)));
  list.value = stream ?? facts.streams[0];
}

element("streams").addEventListener("change", (event) => {
  stream = event.target.value;
  for (const values of Object.values(history)) values.length = 0;
  last = null;
  pause(false);
  context.clearRect(0, 0, canvas.width, canvas.height); // the picture of another source
  const before = socket;
  socket = null; // its end is no disconnection
  before?.close();
  begin();
  showFigures();
});

function listClasses() {
  const list = element("classes");
  list.replaceChildren();
  facts.classes.forEach((name, index) => {
    shown[index] = shown[index] ?? true;
    const item = document.createElement("li");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = shown[index];
    box.addEventListener("change", () => { shown[index] = box.checked; if (last) draw(last); });
    const swatch = document.createElement("i");
    swatch.style.background = `rgb(${facts.palette[index].join(",")})`;
    const title = document.createElement("span");
    title.textContent = name;
    const share = document.createElement("span");
    share.id = `share-${index}`;
    label.append(box, swatch, title, share);
    item.append(label);
    list.append(item);
  });
  if (last) showShares(last.header);
}

function showShares(header) {
  header.shares.forEach((share, index) => text(`share-${index}`, `${(100 * share).toFixed(1)} %`));
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const opened = new WebSocket(`${scheme}://${location.host}/${asked("live")}`);
  socket = opened;
  opened.binaryType = "arraybuffer";
  opened.addEventListener("open", () => opened.send("next"));
  opened.addEventListener("message", async (event) => {
    if (socket !== opened) { opened.close(); return; }
    try {
      const message = await decode(event.data);
      if (socket !== opened) return;
      if (!paused) { last = message; draw(message); describe(message.header); }
      remember(message.header);
    } finally {
      if (socket === opened && opened.readyState === WebSocket.OPEN) opened.send("next");
    }
  });
  opened.addEventListener("close", () => {
    if (socket !== opened) return;
    setState("disconnected");
    const mine = generation;
    setTimeout(() => { if (mine === generation) begin(); }, 1000);
  });
}

async function decode(buffer) {
  const view = new DataView(buffer);
  const headerEnd = 8 + view.getUint32(0, true);
  const pictureEnd = headerEnd + view.getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, headerEnd - 8)));
  const asImage = (start, end, type) =>
    createImageBitmap(new Blob([buffer.slice(start, end)], { type }), { colorSpaceConversion: "none" });
  const [picture, labels] = await Promise.all([
    asImage(headerEnd, pictureEnd, "image/jpeg"),
    asImage(pictureEnd, buffer.byteLength, "image/png"),
  ]);
  return { header, picture, labels };
}

function draw({ picture, labels }) {
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  context.globalAlpha = 1;
  context.drawImage(picture, 0, 0);
  labelCanvas.width = labels.width;
  labelCanvas.height = labels.height;
  labelContext.drawImage(labels, 0, 0);
  const pixels = labelContext.getImageData(0, 0, labels.width, labels.height);
  const data = pixels.data;
  for (let at = 0; at < data.length; at += 4) {
    const label = data[at];
    const colour = facts.palette[label];
    if (colour === undefined || !shown[label]) { data[at + 3] = 0; continue; }
    [data[at], data[at + 1], data[at + 2]] = colour;
  }
  labelContext.putImageData(pixels, 0, 0);
  context.globalAlpha = element("opacity").value / 100;
  context.imageSmoothingEnabled = false;
  context.drawImage(labelCanvas, 0, 0, canvas.width, canvas.height);
}

function describe(header) {
  setState(header.state);
  text("note", header.repeated ? `no new frame for ${(header.age_ms / 1000).toFixed(1)} s` : "");
  showShares(header);
}

function remember(header) {
  for (const [name, value] of [["age", header.age_ms], ["infer", header.stage_ms.infer]]) {
    if (value === undefined) continue;
    const values = history[name];
    values.push(value);
    if (values.length > HISTORY) values.shift();
    text(`${name}-now`, value.toFixed(1));
    chart(element(name), values);
  }
}

function chart(target, values) {
  const ctx = target.getContext("2d");
  const ratio = window.devicePixelRatio;
  const width = target.clientWidth, height = target.clientHeight;
  // As many pixels as are shown: others are squeezed, the text with them.
  target.width = Math.round(width * ratio);
  target.height = Math.round(height * ratio);
  ctx.scale(ratio, ratio);
  const most = Math.max(1, ...values) * 1.1;
  ctx.strokeStyle = "#6ea8fe";
  ctx.lineWidth = 2;
  ctx.beginPath();
  values.forEach((value, index) => {
    const x = (index / (HISTORY - 1)) * width;
    const y = height - (value / most) * (height - CHART_TOP) - 3;
    if (index) ctx.lineTo(x, y); else ctx.moveTo(x, y);
  });
  ctx.stroke();
  ctx.fillStyle = "#98a2b3";
  ctx.font = "12px system-ui";
  ctx.fillText(`${most.toFixed(0)} ms`, 2, 12);
}

async function showFigures() {
  try {
    const status = await (await fetch(asked("status"))).json();
    const rows = [
      ["frames a second", status.recent_fps.toFixed(1)],
      ["frames read", status.frames_read],
      ["segmented", status.frames_segmented],
      ["dropped", status.frames_dropped],
      ["reconnected", status.reconnects],
    ];
    if (status.frames_late !== null) rows.push(["after the deadline", status.frames_late]);
    for (const [stage, value] of Object.entries(status.stage_ms)) {
      rows.push([`${stage}, p50 / p99 ms`, `${value.p50.toFixed(1)} / ${value.p99.toFixed(1)}`]);
    }
    rows.push(...hardwareRows(status.hardware));
    const list = element("figures");
    list.replaceChildren(...rows.flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const figure = document.createElement("dd");
      term.textContent = name;
      figure.textContent = value;
      return [term, figure];
    }));
    // Without the WebSocket, no picture comes: that is said, whatever the device does.
    if (socket?.readyState === WebSocket.OPEN) setState(status.state);
    if (!paused && status.age_ms > 2000) {
      text("note", `no new frame for ${(status.age_ms / 1000).toFixed(1)} s`);
    }
  } catch { /* the WebSocket says that the device is away */ }
}

function hardwareRows(hardware) {
  const rows = [];
  const warmest = Object.entries(hardware.temperatures_c ?? {}).sort((a, b) => b[1] - a[1])[0];
  if (warmest) rows.push([`warmest: ${warmest[0]}`, `${warmest[1].toFixed(0)} °C`]);
  for (const [part, watts] of Object.entries(hardware.power_w ?? {})) {
    rows.push([`power: ${part}`, `${watts.toFixed(1)} W`]);
  }
  for (const [part, share] of Object.entries(hardware.throttling ?? {})) {
    if (share > 0) rows.push([`slowed down: ${part}`, `${(100 * share).toFixed(0)} %`]);
  }
  return rows;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const now = () => new Date().toISOString().replace(/[:.]/g, "-");

function pause(wanted) {
  paused = wanted;
  const button = element("pause");
  button.textContent = paused ? "Go on" : "Pause";
  button.setAttribute("aria-pressed", paused);
  text("note", paused ? `paused at ${new Date().toLocaleTimeString()}` : "");
}

element("pause").addEventListener("click", () => pause(!paused));
element("snapshot").addEventListener("click", () =>
  canvas.toBlob((blob) => save(blob, `sfda-edge-${now()}.png`)));
element("record").addEventListener("click", (event) => {
  if (recorder) { recorder.stop(); return; }
  const parts = [];
  recorder = new MediaRecorder(canvas.captureStream());
  recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
  recorder.addEventListener("stop", () => {
    save(new Blob(parts, { type: recorder.mimeType }), `sfda-edge-${now()}.webm`);
    recorder = null;
    event.target.textContent = "Record";
    event.target.setAttribute("aria-pressed", false);
  });
  recorder.start(1000);
  event.target.textContent = "Stop";
  event.target.setAttribute("aria-pressed", true);
});
element("opacity").addEventListener("input", () => { if (last) draw(last); });

begin();
showFigures();
setInterval(showFigures, 1000);
