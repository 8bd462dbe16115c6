"""The page's addresses, with real clients: HTTP, WebSocket, Prometheus' own parser."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import SinkError

pytest.importorskip("starlette", reason="extra serve")
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from runtime.page.server import PageServer
from runtime.sources.watchdog import State


def live(stream, query="", **settings):
    return connect(stream.server.url.replace("http", "ws") + "live" + query, **settings)


def next_of(viewer):
    viewer.send("next")
    message = viewer.recv(timeout=10)
    header, jpeg = struct.unpack_from("<II", message)
    facts = json.loads(message[8 : 8 + header])
    picture = cv2.imdecode(np.frombuffer(message[8 + header :][:jpeg], np.uint8), 1)
    labels = cv2.imdecode(np.frombuffer(message[8 + header + jpeg :], np.uint8), 0)
    return facts, picture, labels


def test_a_viewer_gets_the_picture_and_the_labels_exactly(stream):
    stream.add(label=2)
    with live(stream) as viewer:
        facts, picture, labels = next_of(viewer)
    assert facts["shares"] == [0.25, 0.0, 0.75]
    assert facts["stage_ms"]["infer"] == 8.0
    assert facts["state"] == "live"
    assert picture.shape == (48, 64, 3)
    assert abs(picture.astype(int) - 100).max() <= 2
    assert (labels[:6] == 0).all()
    assert (labels[6:] == 2).all()


def test_a_viewer_that_is_slow_gets_the_newest_and_misses_the_rest(stream):
    with live(stream) as viewer:
        stream.add()
        assert next_of(viewer)[0]["frame"] == 0
        for _ in range(50):
            stream.add()
        assert next_of(viewer)[0]["frame"] == 50


def test_viewers_do_not_slow_the_stream_and_a_stalled_one_not_the_others(stream):
    """Three viewers beside one that never reads; the sink's own time is what counts."""
    seen, end = dict.fromkeys(range(3), 0), threading.Event()

    def watch(name):
        with live(stream) as viewer:
            while not end.is_set():
                next_of(viewer)
                seen[name] += 1

    viewers = [threading.Thread(target=watch, args=(name,)) for name in seen]
    taken_ms = []
    with live(stream) as stalled:
        stalled.send("next")
        for viewer in viewers:
            viewer.start()
        end_s = time.monotonic() + 60
        while min(seen.values()) < 20:
            assert time.monotonic() < end_s, seen
            start_s = time.perf_counter()
            stream.add()
            taken_ms.append(1000 * (time.perf_counter() - start_s))
            time.sleep(1 / 30)
        end.set()
        stream.add()
        for viewer in viewers:
            viewer.join(5)
    assert np.median(taken_ms) < 20


@pytest.mark.parametrize("message", ["", "nex", "next" * 50, "\u2603", b"next", b"\xff" * 40])
def test_what_a_viewer_sends_is_one_word(stream, message):
    stream.add()
    with live(stream) as viewer:
        viewer.send(message)
        with pytest.raises(ConnectionClosed):
            viewer.recv(timeout=5)
    with live(stream) as viewer:  # the others go on
        assert next_of(viewer)[0]["frame"] == 0


def test_another_sites_page_cannot_watch(get, stream):
    stream.add()
    with pytest.raises(InvalidStatus), live(stream, origin="http://evil.example"):
        pass
    assert get(stream.port, "/status", Origin="http://evil.example").status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "192.168.0.7:8080", ""])
def test_a_name_that_is_not_this_machines_is_refused(get, stream, host):
    assert get(stream.port, "/", Host=host).status == 403


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://[::1"}, {"Host": "[::1"}, {"Host": "[::1", "Origin": "x"}]
)
def test_a_header_that_is_no_address_is_refused(get, stream, headers):
    assert get(stream.port, "/status", **headers).status == 403


def test_the_age_is_that_of_the_moment_and_an_old_result_is_not_ready(get, stream, monkeypatch):
    stream.add()
    with live(stream) as viewer:
        assert next_of(viewer)[0]["age_ms"] < 5000
    later_ns = time.monotonic_ns() + 30_000_000_000
    monkeypatch.setattr("time.monotonic_ns", lambda: later_ns)
    with live(stream) as viewer:
        assert next_of(viewer)[0]["age_ms"] > 29_000
    assert get(stream.port, "/readyz").status == 503


def test_a_viewer_that_leaves_before_the_first_result_is_let_go(stream):
    for _ in range(3):
        with live(stream) as viewer:
            viewer.send("next")
    end_s = time.monotonic() + 30
    while stream.view._waiting:
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_page_that_closes_lets_its_waiting_viewers_go(stream):
    with live(stream) as viewer:
        viewer.send("next")
        while not stream.view._waiting:
            time.sleep(0.02)
        stream.server.close()
        stream.server._thread.join(30)
        assert not stream.server._thread.is_alive()


def test_viewers_that_wait_take_no_threads_and_all_get_the_result(stream):
    def asyncio_threads():
        return {one for one in threading.enumerate() if one.name.startswith("asyncio_")}

    before = asyncio_threads()  # of other tests' pages
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(live(stream)) for _ in range(40)]
        for viewer in viewers:
            viewer.send("next")
        while len(stream.view._waiting) < 40:
            time.sleep(0.02)
        assert asyncio_threads() <= before
        stream.add()
        assert all(len(viewer.recv(timeout=10)) > 8 for viewer in viewers)


def test_prometheus_reads_the_metrics(get, stream):
    for _ in range(4):
        stream.add(label=2)
    stream.add(label=2, repeated=True, state="lost", timing={})
    response = get(stream.port, "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }
    front = ("source", "front")
    assert found["sfda_edge_frames_total", ("outcome", "read"), front] == 10
    assert found["sfda_edge_frames_total", ("outcome", "segmented"), front] == 5
    assert found["sfda_edge_frames_total", ("outcome", "dropped"), front] == 2
    assert found["sfda_edge_reconnects_total", front] == 3
    assert found["sfda_edge_source_state", front, ("state", "live")] == 1
    assert found["sfda_edge_source_state", front, ("state", "lost")] == 0
    assert found["sfda_edge_class_share", ("class", "car"), front] == 0.75
    assert found["sfda_edge_golden_agreement",] == 0.9987
    assert found["sfda_edge_stage_seconds_count", front, ("stage", "infer")] == 4
    assert found["sfda_edge_stage_seconds_sum", front, ("stage", "infer")] == pytest.approx(0.032)
    assert found["sfda_edge_frame_age_seconds_count", front] == 4
    info = [key for key in found if key[0] == "sfda_edge_backend_info"]
    assert ("provider", "CPUExecutionProvider") in info[0]
    assert found["process_resident_memory_bytes",] > 1e7


def test_health_is_of_the_process_and_readiness_of_the_stream(get, stream):
    assert get(stream.port, "/healthz").body == b"ok"
    assert get(stream.port, "/readyz").status == 503
    stream.add()
    assert get(stream.port, "/readyz").status == 200
    stream.view.source.state_now = State.ENDED
    assert get(stream.port, "/readyz").body == b"not ready: front is ended"
    stream.view.source.state_now = State.LIVE
    stream.add(repeated=True, state="lost")
    assert get(stream.port, "/readyz").status == 503


def test_the_status_and_the_facts(get, stream):
    stream.add()
    status = json.loads(get(stream.port, "/status").body)
    assert (status["state"], status["reconnects"], status["frames_segmented"]) == ("live", 3, 1)
    facts = json.loads(get(stream.port, "/facts").body)
    assert facts["classes"] == ["sky", "road", "car"]
    assert facts["source"] == "rtsp://…@camera/1"
    assert facts["backend"]["golden_agreement"] == 0.9987


def test_each_of_several_streams_has_its_own_pictures_and_figures(get, two_streams):
    front, rear = two_streams
    front.add(label=1)
    assert get(front.port, "/readyz").body == b"not ready: rear left is live"
    assert get(front.port, "/readyz?source=front").status == 200
    assert get(front.port, "/readyz?source=rear%20left").status == 503
    assert get(front.port, "/readyz?source=other").status == 404
    rear.add(label=2)
    rear.add(label=2)
    assert get(front.port, "/readyz").status == 200
    facts = json.loads(get(front.port, "/facts").body)
    assert facts["streams"] == ["front", "rear left"]
    counts = [
        json.loads(get(front.port, f"/status{query}").body)["frames_segmented"]
        for query in ("", "?source=front", "?source=rear%20left")
    ]
    assert counts == [1, 1, 2]
    with live(front, "?source=rear%20left") as viewer:
        assert next_of(viewer)[0]["shares"] == [0.25, 0.0, 0.75]
    with live(front) as viewer:
        assert next_of(viewer)[0]["shares"] == [0.25, 0.75, 0.0]
    for path in ("/status", "/facts", "/stream.mjpg"):
        assert get(front.port, f"{path}?source=../etc").status == 404
    text = get(front.port, "/metrics").body.decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "a family comes twice"
    frames = next(one for one in families if one.name == "sfda_edge_frames").samples
    segmented = {s.labels["source"]: s.value for s in frames if s.labels["outcome"] == "segmented"}
    assert segmented == {"front": 1, "rear left": 2}


MESSAGES = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200),
    st.sampled_from(["NEXT", "next ", '{"next": 1}', b"next", "x" * 5000]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(MESSAGES)
def test_whatever_a_viewer_sends_the_page_goes_on(stream, message):
    stream.add(label=2)
    with contextlib.suppress(ConnectionClosed), live(stream) as viewer:
        viewer.send(message)
        if message != "next":
            viewer.recv(timeout=10)
            raise AssertionError(f"{message!r} was answered")
    with live(stream) as viewer:
        assert next_of(viewer)[0]["shares"] == [0.25, 0.0, 0.75]


def test_a_stream_that_is_not_there_has_no_live_picture(stream):
    with pytest.raises(InvalidStatus), live(stream, "?source=nowhere"):
        pass


def test_mjpeg_is_for_programs_that_know_no_websocket(stream):
    stream.add(state="frozen")
    host, port = stream.server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        data = b""
        while data.count(b"\xff\xd9") < 1:
            data += client.recv(65536)
    assert b"multipart/x-mixed-replace; boundary=frame" in data
    jpeg = data[data.index(b"\xff\xd8") : data.index(b"\xff\xd9") + 2]
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).shape == (48, 64, 3)


@pytest.mark.parametrize("path", ["/page.html", "/../server.py", "/static/page.js", "/etc/passwd"])
def test_only_the_listed_files_are_served(get, stream, path):
    assert get(stream.port, path).status == 404


def test_the_page_may_load_nothing_from_elsewhere(get, stream):
    response = get(stream.port, "/")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert b"http" not in response.body.replace(b"http-equiv", b"")
    assert b"://" not in get(stream.port, "/page.css").body


def is_open(connection):
    """Whether the server has not ended a connection."""
    connection.settimeout(0.05)
    try:
        while connection.recv(1 << 16):  # what was sent before
            pass
        return False
    except TimeoutError:
        return True
    except OSError:
        return False


def test_connections_that_ask_for_nothing_are_ended(stream, get, monkeypatch):
    monkeypatch.setattr("runtime.page.patience.LOOK_S", 0.3)
    address = ("127.0.0.1", stream.port)
    stream.add()
    with contextlib.ExitStack() as stack:
        silent, half, again, viewer, endless = (
            stack.enter_context(socket.create_connection(address)) for _ in range(5)
        )
        half.sendall(b"GET /status HTTP/1.1\r\nHost: ")
        again.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert again.recv(4096).startswith(b"HTTP/1.1 200")
        again.sendall(b"GET /healthz HTTP/1.1\r\n")
        viewer.sendall(UPGRADE)
        assert viewer.recv(4096).startswith(b"HTTP/1.1 101")
        endless.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert endless.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(1.5)
        assert not any(map(is_open, (silent, half, again)))
        assert all(map(is_open, (viewer, endless)))


UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_more_connections_than_some_are_ended_at_once(stream, get, monkeypatch):
    monkeypatch.setattr("runtime.page.patience.MOST_CONNECTIONS", 5)
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", stream.port)))
            for _ in range(12)
        ]
        time.sleep(0.5)
        assert sum(map(is_open, held)) == 5
    time.sleep(0.2)
    assert get(stream.port, "/healthz").status == 200


def test_pictures_are_not_compressed_again(stream):
    stream.add()
    with live(stream, compression="deflate") as viewer:
        assert not viewer.protocol.extensions


def test_figures_are_computed_once_for_all_viewers(stream, monkeypatch):
    calls = []
    monkeypatch.setattr("runtime.page.view._FIGURES_S", 60)
    figures = stream.view._figures
    monkeypatch.setattr(stream.view, "_figures", lambda: calls.append(1) or figures())
    for _ in range(20):
        stream.view.status()
    assert len(calls) == 1


def test_an_address_in_use_is_an_error(stream):
    port = stream.server.url.rstrip("/").rpartition(":")[2]
    with pytest.raises(SinkError, match=f"cannot serve on 127.0.0.1:{port}: Address already in"):
        PageServer([stream.view], stream.metrics, ("127.0.0.1", int(port)))


def test_a_closed_server_is_gone_at_once(get, stream):
    stream.add()
    with live(stream) as viewer:
        next_of(viewer)
        start_s = time.monotonic()
        stream.server.close()
        assert time.monotonic() - start_s < 2
    with pytest.raises(ConnectionRefusedError):
        get(stream.port, "/")
