"""Frames of live sources are converted when they are used, and judged without."""

import time

import numpy as np
import pytest

from runtime.frames import GRID_PX, Frame, LazyImage
from runtime.pipeline import Pipeline
from runtime.sources import av_source
from runtime.sources.av_source import AvSource
from runtime.sources.base import ImageSource
from runtime.sources.containers import FILES

av = pytest.importorskip("av")


def test_an_image_is_converted_once_and_only_when_it_is_used():
    calls = []
    image = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    lazy = LazyImage(
        lambda: calls.append(1) or image, lambda: image[::8, ::8, 0], nbytes=image.nbytes
    )
    frame = Frame(0, lazy, 0)
    assert frame.sample().shape == (3, 4)
    assert not calls
    assert frame.image is image
    assert frame.image is image
    assert calls == [1]
    np.testing.assert_array_equal(frame.sample(), image[::GRID_PX, ::GRID_PX])


class Fast(ImageSource):
    """200 frames a second, which count their conversions."""

    live, name = True, "fast"

    def __init__(self):
        super().__init__()
        self.converted = 0

    def _next_image(self):
        time.sleep(0.005)
        return LazyImage(self._convert, nbytes=1)

    def _convert(self):
        self.converted += 1
        return np.zeros((24, 32, 3), np.uint8)


class Slow:
    name = "slow"

    def outputs(self, image):
        time.sleep(0.05)
        return {"label_map": image[..., 0]}


def test_frames_that_are_dropped_are_never_converted():
    source = Fast()
    pipeline = Pipeline(source, Slow(), (24, 32), max_frames=5)
    pipeline.run()
    assert pipeline.frames_dropped > 10
    assert source.converted <= 5 + 2  # one may be with the model at the end, one behind it


@pytest.fixture(params=["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"])
def video(request, tmp_path):
    """Four pictures that brighten from left to right, in a format."""
    path = tmp_path / "clip.mkv"
    codec = "mjpeg" if request.param == "yuvj420p" else "ffv1"
    container = av.open(str(path), "w")
    stream = container.add_stream(codec, rate=10)
    stream.height, stream.width, stream.pix_fmt = 64, 96, request.param
    ramp = np.broadcast_to(np.linspace(0, 255, 96, dtype=np.uint8)[None, :, None], (64, 96, 3))
    for _ in range(4):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp), "rgb24")
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
    container.close()
    return path


def test_the_sample_is_the_brightness_of_the_image(video, monkeypatch):
    convert, converted = av_source._converted, []
    monkeypatch.setattr(av_source, "_converted", lambda f: converted.append(1) or convert(f))
    with AvSource("clip", str(video), FILES, live=True) as source:
        frame = source.read()
    assert not converted, "a live source's frame is converted when it is used"
    sample = frame.sample()
    assert bool(converted) == (sample.ndim == 3)
    grid = frame.image[::GRID_PX, ::GRID_PX]
    grey = sample if sample.ndim == 2 else sample.mean(-1)
    np.testing.assert_allclose(grey, grid.mean(-1), atol=6)
