"""The page in real Chromium."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from runtime.sources.watchdog import State

playwright = pytest.importorskip("playwright.sync_api", reason="extra dev")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
    pytest.mark.slow,
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, stream):
    """The page, with a result every 50 ms; errors and requests to elsewhere fail the test."""
    opened, problems = browser.new_page(), []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda one: one.type == "error" and problems.append(one.text))
    opened.on(
        "request",
        lambda one: (
            one.url.startswith((stream.server.url, "blob:", "data:")) or problems.append(one.url)
        ),
    )
    end = threading.Event()

    def feed():
        while not end.wait(0.05):
            stream.add(label=2, **stream.changes)

    stream.changes, stream.gone = {}, False
    feeder = threading.Thread(target=feed)
    feeder.start()
    opened.goto(stream.server.url)
    until(opened, "() => Boolean(document.getElementById('share-2')?.textContent)")
    yield opened
    end.set()
    feeder.join()
    opened.close()
    assert stream.gone or problems == []


def until(page, script, arg=None, limit_s=30):
    """Poll from here: the page's policy forbids Playwright's own way."""
    end_s = time.monotonic() + limit_s
    while not page.evaluate(script, arg):
        assert time.monotonic() < end_s, script
        page.wait_for_timeout(50)


def reads(page, selector, text):
    """Wait for this text: what the page shows comes from several requests, in any order."""
    script = "([selector, text]) => document.querySelector(selector)?.textContent === text"
    until(page, script, [selector, text])


def mentions(page, selector, text):
    script = "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)"
    until(page, script, [selector, text])


def shows(page, x, y, colour):
    """Wait for a picture with this colour."""
    script = """([x, y, colour]) => {
        const found = context.getImageData(x, y, 1, 1).data;
        return colour.every((value, at) => Math.abs(value - found[at]) <= 3);
    }"""
    until(page, script, [x, y, colour])


@pytest.mark.parametrize("width", [420, 900])
def test_charts_have_the_pixels_that_are_shown(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    sizes = "c => [c.width, c.height, c.clientWidth, c.clientHeight]"
    until(
        page,
        f"() => {{ const [w, h, x, y] = ({sizes})(document.querySelector('#age')); "
        "const r = window.devicePixelRatio; return w === Math.round(x * r) "
        "&& h === Math.round(y * r); }",
    )
    beside = "() => document.querySelector('#age').getBoundingClientRect().top !== "
    beside += "document.querySelector('#infer').getBoundingClientRect().top"
    assert page.evaluate(beside) == (width < 520)


def test_the_picture_the_legend_and_the_facts(page):
    reads(page, "#state", "live")
    reads(page, "#source", "rtsp://…@camera/1")
    mentions(page, "#backend", "fp32, golden frame 99.87 %")
    names = page.locator("#classes li span:nth-of-type(1)").all_text_contents()
    assert names == ["sky", "road", "car"]
    reads(page, "#share-2", "75.0 %")
    # Grey 100 under half of red, and under half of blue.
    shows(page, 40, 40, [178, 50, 50])
    shows(page, 40, 5, [50, 50, 178])


def test_opacity_and_class_toggles_change_the_picture_here(page):
    page.locator("#classes input").nth(2).uncheck()
    shows(page, 40, 40, [100, 100, 100])
    shows(page, 40, 5, [50, 50, 178])
    page.locator("#opacity").fill("100")
    shows(page, 40, 5, [0, 0, 255])


def test_pause_stops_the_picture_and_snapshot_saves_it(page):
    page.click("#pause")
    reads(page, "#pause", "Go on")
    with page.expect_download() as download:
        page.click("#snapshot")
    assert download.value.suggested_filename.endswith(".png")
    assert download.value.path().read_bytes()[:4] == b"\x89PNG"


def test_a_lost_source_is_seen_while_paused(page, stream):
    page.click("#pause")
    mentions(page, "#note", "paused at")
    stream.view.source.state_now = State.LOST
    reads(page, "#state", "lost")
    mentions(page, "#note", "paused at")
    page.click("#pause")
    reads(page, "#pause", "Pause")


def test_without_a_websocket_the_picture_is_not_called_live(page):
    """Figures come by another way, and their state is not that of the picture."""
    page.evaluate(
        "() => { window.WebSocket = class { static OPEN = 1; addEventListener() {} close() {} }; }"
    )
    page.evaluate("() => { socket.close(); }")
    reads(page, "#state", "disconnected")
    page.wait_for_timeout(2500)
    reads(page, "#state", "disconnected")


def test_a_page_without_its_token_says_so(page, stream):
    stream.gone = True  # requests that are refused are no fault of the page
    page.route("**/facts", lambda route: route.fulfill(status=403, body="a token is needed"))
    page.evaluate("() => { socket.close(); }")
    reads(page, "#state", "token needed")


def test_record_saves_a_video(page):
    page.click("#record")
    page.wait_for_timeout(1500)
    with page.expect_download() as download:
        page.click("#record")
    assert download.value.suggested_filename.endswith(".webm")
    assert download.value.path().stat().st_size > 1000


def test_a_lost_source_is_shown_with_its_age(page, stream):
    stream.changes = {"repeated": True, "state": "lost", "timing": {}}
    mentions(page, "#note", "no new frame")


def test_a_device_that_goes_away_is_shown(page, stream):
    stream.gone = True  # what fails to load from now on is no fault of the page
    stream.server.close()
    reads(page, "#state", "disconnected")


NOTE_STATES = """() => {
  window.states = [];
  const badge = document.getElementById("state");
  const note = () => states.push(badge.textContent);
  new MutationObserver(note).observe(badge, {childList: true, characterData: true, subtree: true});
}"""


def test_one_page_shows_the_source_that_is_chosen(browser, two_streams):
    front, rear = two_streams
    page, end = browser.new_page(), threading.Event()

    def feed():
        while not end.wait(0.05):
            front.add(label=1)
            rear.add(label=2)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        page.goto(front.server.url)
        reads(page, "#share-1", "75.0 %")
        reads(page, "#streams", "frontrear left")
        page.evaluate(NOTE_STATES)
        page.select_option("#streams", "rear left")
        reads(page, "#share-2", "75.0 %")
        reads(page, "#share-1", "0.0 %")
        page.wait_for_timeout(1500)
        # The first picture's WebSocket has ended, and that is no loss.
        assert "disconnected" not in page.evaluate("() => states")
        reads(page, "#state", "live")
        page.click("#pause")
        reads(page, "#pause", "Go on")
        page.select_option("#streams", "front")
        reads(page, "#pause", "Pause")
        reads(page, "#share-1", "75.0 %")
    finally:
        end.set()
        feeder.join()
        page.close()


def test_a_single_source_needs_no_list(page):
    assert page.locator("#streams").is_hidden()
