import signal
import threading
import time

import numpy as np
import pytest

import runtime
from runtime.packaged import BUNDLE_DIR, CLIP
from runtime.sources.base import ImageSource


def test_a_bundle_answers_an_image_of_any_size_with_one_array_of_its_size():
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    with runtime.load_bundle() as bundle:
        labels = bundle.segment(image)
        assert labels.shape == (100, 150)
        assert labels.dtype == np.uint8
        assert labels.max() < bundle.label_space.num_classes
        assert bundle.outputs(image)["label_map"].shape == bundle.manifest.input_hw
        for wrong in (image[..., 0], image.astype(np.float32), image[..., :2]):
            with pytest.raises(runtime.StreamError, match="expected an image"):
                bundle.segment(wrong)


def test_a_stream_is_a_loop_over_results():
    with runtime.open_stream(CLIP, bundle=BUNDLE_DIR, max_frames=5) as stream:
        results = list(stream)
        assert [result.frame.index for result in results] == [0, 1, 2, 3, 4]
        for result in results:
            assert result.label_map.dtype == np.uint8
            assert result.confidence is None  # this bundle has none
            assert set(result.timing) == {"read", "queue", "resize", "infer"}
        assert stream.figures.segmented == 5


def test_a_loop_that_is_left_leaves_no_thread_behind():
    before = threading.active_count()
    with runtime.open_stream("streetsynth") as stream:
        for result in stream:
            assert result.frame.index == 0
            break
    assert threading.active_count() == before


def test_a_loop_that_is_left_without_closing_frees_source_and_model(monkeypatch):
    closed = []
    original = ImageSource.close

    def close(self):
        closed.append(type(self).__name__)
        original(self)

    monkeypatch.setattr(ImageSource, "close", close)
    before = threading.active_count()
    for result in runtime.open_stream("streetsynth"):
        assert result.frame.index == 0
        break
    assert closed
    assert threading.active_count() == before


class Silent(ImageSource):
    """A live source that gives nothing before it is interrupted."""

    name, live = "silent", True

    def __init__(self):
        super().__init__()
        self._ready = threading.Event()

    def _next_image(self):
        self._ready.wait()
        return np.zeros((8, 8, 3), np.uint8)

    def interrupt(self):
        self._ready.set()


def test_another_thread_may_close_a_stream_while_it_waits(monkeypatch):
    class SlowToClose(Silent):
        freed = False

        def _release(self):
            time.sleep(0.5)
            self.freed = True

    source, results, failures = SlowToClose(), [], []
    monkeypatch.setattr("runtime.api.open_source", lambda *_: source)
    stream = runtime.open_stream("camera0")

    def loop():
        try:
            results.extend(stream)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    time.sleep(0.5)
    stream.close()
    assert source.freed, "whoever closes may open the camera again"
    thread.join(5)
    assert not thread.is_alive()
    assert not failures
    assert len(results) <= 1


def test_a_signal_may_close_the_stream_that_it_interrupts(monkeypatch):
    source = Silent()
    monkeypatch.setattr("runtime.api.open_source", lambda *_: source)
    stream = runtime.open_stream("camera0")
    before = signal.signal(signal.SIGALRM, lambda *_: stream.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        assert len(list(stream)) <= 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert source._closed


def test_a_stream_is_iterated_once_and_not_after_it_was_closed():
    stream = runtime.open_stream("streetsynth", max_frames=2)
    assert len(list(stream)) == 2
    assert list(stream) == []
    other = runtime.open_stream("streetsynth")
    other.close()
    assert list(other) == []


def test_what_does_not_open_is_an_error_before_the_loop():
    with pytest.raises(runtime.StreamError, match="does not exist"):
        runtime.open_stream("nothing.mp4")
    with pytest.raises(AttributeError, match="no attribute 'open_camera'"):
        runtime.open_camera  # noqa: B018


def test_closing_twice_and_closing_a_stream_that_is_read_end_cleanly():
    model = runtime.load_bundle()
    model.close()
    model.close()
    stream = runtime.open_stream("streetsynth")
    results = iter(stream)
    next(results)
    stream.close()
    stream.close()
    mine = [t for t in threading.enumerate() if t.name in ("reader", "inference")]
    for thread in mine:
        thread.join(10)  # on a busy machine they end a little later
    assert not any(thread.is_alive() for thread in mine)
    assert next(results, None) is None
