import threading
import time

import numpy as np
import pytest

from runtime.errors import SourceError, StreamError
from runtime.frames import Frame, LazyImage
from runtime.loss import LossPolicy
from runtime.pipeline import Pipeline, _frame_buffer
from runtime.sources.base import ImageSource
from runtime.sources.watchdog import State

SIZE_HW = (4, 6)


class Scripted(ImageSource):
    """Frames whose pixels are their number; may pause, fail, or never end."""

    def __init__(self, count, live=False, pause_s=0.0, error=None):
        super().__init__()
        self.name, self.live = "scripted", live
        self._total, self._pause_s, self._error = count, pause_s, error

    def _next_image(self):
        time.sleep(self._pause_s)
        if self._count == self._total:
            if self._error:
                raise self._error
            return None
        return np.full((*SIZE_HW, 3), self._count % 256, np.uint8)


class Echo:
    """A backend whose label map is the image's first channel."""

    name = "echo"

    def __init__(self, pause_s=0.0, error_at=None):
        self._pause_s, self._error_at = pause_s, error_at

    def outputs(self, image):
        time.sleep(self._pause_s)
        if self._error_at is not None and image[0, 0, 0] == self._error_at:
            raise SourceError("the model broke")
        return {"label_map": image[..., 0], "confidence": 255 - image[..., 0]}


class Kept:
    def __init__(self, pause_s=0.0):
        self.results, self.closed, self._pause_s = [], False, pause_s

    def write(self, result):
        time.sleep(self._pause_s)
        self.results.append(result)

    def close(self):
        self.closed = True


def run(source, backend=None, sink=None, **settings):
    sink = sink or Kept()
    pipeline = Pipeline(source, backend or Echo(), SIZE_HW, **settings)
    try:
        pipeline.run([sink])
    finally:
        names = [thread.name for thread in threading.enumerate()]
        assert not {"reader", "inference"} & set(names), "a thread was left behind"
    return pipeline, [result.frame.index for result in sink.results]


def test_every_frame_of_a_file_comes_out_in_order():
    pipeline, indices = run(Scripted(50), Echo(0.001))
    assert indices == list(range(50))
    assert pipeline.frames_read == 50
    assert pipeline.frames_dropped == 0


def test_each_label_map_belongs_to_its_frame():
    sink = Kept()
    run(Scripted(20), sink=sink)
    for result in sink.results:
        assert (result.label_map == result.frame.index).all()


def test_a_live_source_drops_what_the_model_has_no_time_for():
    pipeline, indices = run(Scripted(60, live=True, pause_s=0.002), Echo(0.02))
    assert indices == sorted(set(indices))
    assert pipeline.frames_dropped > 0
    assert len(indices) + pipeline.frames_dropped == pipeline.frames_read == 60


def test_a_slow_sink_makes_a_live_source_drop_not_wait():
    pipeline, indices = run(Scripted(60, live=True, pause_s=0.002), sink=Kept(0.02))
    assert len(indices) + pipeline.frames_dropped == 60
    assert pipeline.frames_dropped > 0


def test_max_frames_of_a_file_and_of_a_camera():
    assert run(Scripted(50), max_frames=7)[1] == list(range(7))
    assert len(run(Scripted(10**9, live=True, pause_s=0.001), max_frames=7)[1]) == 7


def test_an_error_of_the_source_comes_after_its_frames():
    sink = Kept()
    with pytest.raises(SourceError, match="unplugged"):
        run(Scripted(5, error=SourceError("unplugged")), sink=sink)
    assert len(sink.results) == 5


def test_an_error_of_the_model_ends_the_stream():
    sink = Kept()
    with pytest.raises(SourceError, match="the model broke"):
        run(Scripted(50), Echo(error_at=3), sink)
    assert [r.frame.index for r in sink.results] == [0, 1, 2]


def test_stop_ends_a_stream_that_would_never_end():
    sink = Kept()
    stop, endless = threading.Event(), Scripted(10**9, live=True, pause_s=0.001)
    pipeline = Pipeline(endless, Echo(), SIZE_HW, stop=stop)
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    pipeline.run([sink])
    timer.join()
    assert sink.results


def test_stages_are_timed_and_add_up():
    sink = Kept(0.004)
    pipeline, _ = run(Scripted(10, pause_s=0.001), Echo(0.003), sink)
    stages = pipeline.snapshot().stage_ms
    assert list(stages) == ["read", "queue", "resize", "infer", "output", "age"]
    assert stages["infer"][0] >= 3
    assert stages["output"][0] >= 4
    assert stages["age"][0] >= stages["infer"][0] + stages["output"][0]


def balance(pipeline):
    figures = pipeline.snapshot()
    return figures.read - figures.segmented - figures.dropped


class Broken(Echo):
    """Fails with a library's error, three frames after the warm-up."""

    calls = 0

    def outputs(self, image):
        self.calls += 1
        if self.calls > 6:
            raise RuntimeError("CUDA error 700\nand its stack")
        return super().outputs(image)


def test_no_frame_is_uncounted_when_the_model_fails():
    pipeline = Pipeline(Scripted(500, live=True, pause_s=0.001), Broken(), SIZE_HW)
    with pytest.raises(StreamError, match="CUDA error 700"):
        pipeline.run()
    assert balance(pipeline) == 0


def test_no_frame_is_uncounted_when_a_sink_fails_or_the_loop_is_left():
    class Failing(Kept):
        def write(self, result):
            raise StreamError("full")

    pipeline = Pipeline(Scripted(500, live=True, pause_s=0.001), Echo(), SIZE_HW)
    with pytest.raises(StreamError, match="full"):
        pipeline.run([Failing()])
    assert (balance(pipeline), pipeline.snapshot().segmented) == (0, 1)
    pipeline = Pipeline(Scripted(500, live=True, pause_s=0.001), Echo(), SIZE_HW)
    for _ in pipeline.results():
        break
    assert balance(pipeline) == 0


def test_an_error_of_a_library_becomes_one_that_the_user_reads():
    with pytest.raises(StreamError, match=r"echo fails: CUDA error 700$"):
        Pipeline(Scripted(50), Broken(), SIZE_HW).run()
    with pytest.raises(SourceError, match="scripted fails: no memory"):
        Pipeline(Scripted(5, error=MemoryError("no memory")), Echo(), SIZE_HW).run()


def test_a_model_that_hangs_does_not_hold_up_the_end():
    class Hanging(Echo):
        calls = 0

        def outputs(self, image):
            self.calls += 1
            if self.calls > 4:
                time.sleep(20)
            return super().outputs(image)

    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    start_s = time.monotonic()
    Pipeline(Scripted(10**6, live=True, pause_s=0.01), Hanging(), SIZE_HW, stop=stop).run()
    assert time.monotonic() - start_s < 8


def test_a_stop_does_not_wait_for_the_frames_that_wait():
    stop = threading.Event()
    source = Scripted(10**6, live=True, pause_s=0.001)
    pipeline = Pipeline(source, Echo(0.1), SIZE_HW, stop=stop, buffer_policy="every")
    threading.Timer(0.5, stop.set).start()
    start_s = time.monotonic()
    pipeline.run()
    assert time.monotonic() - start_s < 3
    assert balance(pipeline) == 0


@pytest.mark.parametrize("live", [True, False])
def test_late_frames_of_a_live_source_are_skipped_and_a_file_is_segmented_whole(live):
    source = Scripted(40, live=live, pause_s=0.001)
    pipeline = Pipeline(
        source, Echo(0.02), SIZE_HW, buffer_policy="every-with-deadline", deadline_ms=30
    )
    pipeline.run()
    figures = pipeline.snapshot()
    assert (figures.dropped > 0) == live
    assert balance(pipeline) == 0
    assert figures.late > 0 or live


def test_policies_are_known_by_name():
    with pytest.raises(StreamError, match="one of newest, every"):
        Pipeline(Scripted(1), Echo(), SIZE_HW, buffer_policy="evry")
    with pytest.raises(StreamError, match="needs --deadline-ms"):
        Pipeline(Scripted(1), Echo(), SIZE_HW, buffer_policy="every-with-deadline")
    with pytest.raises(SourceError, match="one of hold, blank, stop"):
        LossPolicy("holt", 255)


class InState(Scripted):
    """A source that is in a state of the test's."""

    state = State.OPENING


@pytest.mark.parametrize(
    ("state", "stops"), [("opening", False), ("stale", True), ("lost", True), ("black", False)]
)
def test_stopping_on_loss_waits_for_the_first_frame(state, stops):
    source = InState(5, live=True)
    source.state = State(state)
    policy = LossPolicy("stop", 255)
    if stops:
        with pytest.raises(SourceError, match=f"scripted is {state}: stopped"):
            policy.result(source, None)
    else:
        assert policy.result(source, None) is None


def test_a_source_is_not_closed_while_it_is_read():
    class Slow(Scripted):
        inside = released_inside = released = False

        def _next_image(self):
            self.inside = True
            time.sleep(0.3)
            self.inside = False
            return super()._next_image()

        def _release(self):
            self.released, self.released_inside = True, self.inside

    source = Slow(5)
    reader = threading.Thread(target=source.read)
    reader.start()
    time.sleep(0.1)
    source.close()
    assert not source.released
    reader.join()
    assert (source.released, source.released_inside) == (True, False)
    assert source.read() is None


@pytest.mark.parametrize(("nbytes", "kept"), [(1, 64), (3 * 2160 * 3840, 10), (1 << 30, 1)])
def test_waiting_frames_of_a_live_source_are_bounded_in_number_and_memory(nbytes, kept):
    buffer = _frame_buffer(True, "every")
    for index in range(70):
        buffer.put((Frame(index, LazyImage(lambda: None, nbytes=nbytes), 0), 0.0))
    buffer.close()
    assert [frame.index for frame, _ in (buffer.get() for _ in range(kept))] == list(
        range(70 - kept, 70)
    )
