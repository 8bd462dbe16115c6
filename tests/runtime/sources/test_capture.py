"""Both decoders give the same frames, read on behind damage, and open only what is listed."""

import fractions
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.frames import GRID_PX, LazyImage
from runtime.packaged import CLIP
from runtime.sources.capture import CaptureSource, ffmpeg_options, load_opencv
from runtime.sources.grammar import open_source
from runtime.sources.video_file import open_video_file, open_with_opencv

DECODERS = {"PyAV": open_video_file, "OpenCV": open_with_opencv}

PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {secret}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
    "m3u of a URL": "#EXTM3U\nhttp://127.0.0.1:9/x.mp4\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "text": "frame after frame of text\n" * 500,
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".m3u8"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_file_cannot_make_us_read_another(decoder, kind, suffix, tmp_path):
    secret = shutil.copy(CLIP, tmp_path / "secret.mp4")
    (tmp_path / f"clip{suffix}").write_text(PLAYLISTS[kind].format(secret=secret))
    with pytest.raises(SourceError, match="is not a video that can be read"):
        DECODERS[decoder](tmp_path / f"clip{suffix}")


def test_an_ordinary_file_still_plays(tmp_path):
    with open_source(str(shutil.copy(CLIP, tmp_path / "clip.mp4"))) as source:
        assert source.read().image.shape[2] == 3


def test_a_fifo_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(SourceError, match="does not exist"):
        open_source(str(tmp_path / "clip.mp4"))


def test_a_name_that_opencv_cannot_open_is_rejected(tmp_path):
    name = tmp_path / b"clip\xff.mp4".decode("utf-8", "surrogateescape")
    shutil.copy(CLIP, name)
    with pytest.raises(SourceError, match="OpenCV cannot open this name"):
        open_source(str(name))


def write_video(path, *, size=(96, 64), times_ms=range(0, 480, 40), **settings):
    """A square that moves over a grey ramp, at these times."""
    av = pytest.importorskip("av", reason="extra video")
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(settings.pop("codec", "libx264"), rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = settings.pop("pix_fmt", "yuv420p")
        stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for index, time_ms in enumerate(times_ms):
            picture = np.tile(
                np.linspace(0, 255, width, dtype=np.uint8)[None, :, None], (height, 1, 3)
            )
            picture[8:24, 4 * index : 4 * index + 16] = (200, 40, 10 * index % 256)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = time_ms, fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


VIDEOS = {
    "h264": {},
    "odd size": {"codec": "mpeg4", "size": (97, 63)},
    "10 bit": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "full range": {"color_range": 2},
    "limited range": {"color_range": 1},
    "bt709": {"colorspace": 1, "color_range": 1},
    "4:4:4": {"pix_fmt": "yuv444p"},
    "variable rate": {"times_ms": [0, 40, 50, 90, 200, 210, 700, 1500]},
}


@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_both_decoders_give_the_same_frames_at_the_same_times(kind, suffix, tmp_path):
    path = write_video(tmp_path / f"video{suffix}", **VIDEOS[kind])
    times_ms = list(VIDEOS[kind].get("times_ms", range(0, 480, 40)))
    with open_video_file(path) as one, open_with_opencv(path) as other:
        assert (one.codec != "", other.codec) == (True, "")
        found = list(iter(one.read, None))
        same = list(iter(other.read, None))
    assert len(found) == len(same) == len(times_ms)
    for left, right in zip(found, same, strict=True):
        # OpenCV rounds 10 bits to 8 in a way of its own.
        most = 4 if kind == "10 bit" else 0
        assert np.abs(left.image.astype(int) - right.image).max() <= most
        assert left.time_s == pytest.approx(right.time_s, abs=0.002)
    np.testing.assert_allclose([frame.time_s * 1000 for frame in found], times_ms, atol=2)


def test_it_is_said_when_opencv_decodes(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    with open_video_file(CLIP):
        assert "decoded by OpenCV" not in caplog.text
    monkeypatch.setattr("runtime.sources.video_file.has_av", lambda: False)
    with open_video_file(CLIP):
        assert "decoded by OpenCV; PyAV is not installed" in caplog.text


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_phones_video_is_upright(decoder, real_data):
    """Recorded sideways, with a note to turn it: cases/12."""
    with DECODERS[decoder](real_data / "cases/12/turned.mp4") as source:
        found = source.read().image
    assert found.shape == (160, 96, 3)
    with open_with_opencv(real_data / "cases/12/turned.mp4") as other:
        np.testing.assert_array_equal(found, other.read().image)


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_behind_damage_are_read_and_the_damage_is_said(decoder, real_data, caplog):
    """Frames 50 to 55 of 120 are damaged: cases/2."""
    with DECODERS[decoder](real_data / "cases/2/damaged.mp4") as source:
        count = sum(1 for _ in iter(source.read, None))
    assert 100 <= count < 120
    assert "damaged frames were left out" in caplog.text


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_file_that_was_cut_off_is_said_with_both_counts(decoder, tmp_path, caplog):
    path = write_video(tmp_path / "video.mkv", times_ms=range(0, 4000, 40))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with DECODERS[decoder](path) as source:
        count = sum(1 for _ in iter(source.read, None))
    assert 10 < count < 100
    assert "not whole" in caplog.text or not source.promised


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_video_without_a_frame_is_an_error(decoder, tmp_path):
    path = write_video(tmp_path / "video.mp4", codec="mpeg4", times_ms=range(0, 400, 40))
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    with (
        pytest.raises(SourceError, match=r"no frame that can be decoded|not a video"),
        DECODERS[decoder](path) as source,
    ):
        source.read()


def test_a_live_capture_is_converted_when_it_is_used_and_keeps_its_own_pixels():
    capture = load_opencv().VideoCapture(str(CLIP))
    with CaptureSource("camera", capture, live=True) as source:
        frames = [source.read() for _ in range(3)]
    assert all(isinstance(frame.picture, LazyImage) for frame in frames)
    with open_with_opencv(CLIP) as source:
        for frame in frames:  # read long after the capture went on
            sample, image = frame.sample(), source.read().image
            np.testing.assert_array_equal(frame.image, image)
            np.testing.assert_array_equal(sample, image[::GRID_PX, ::GRID_PX, ::-1])


def test_openings_with_the_same_options_go_on_side_by_side():
    """A camera that does not answer keeps no other waiting; other options wait for their turn."""
    both, order = threading.Barrier(2), []

    def alike():
        with ffmpeg_options("a;1"):
            both.wait(10)
            assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "a;1"
            time.sleep(0.4)
            order.append("alike")

    def other():
        with ffmpeg_options("b;2"):
            assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "b;2"
            order.append("other")

    def late():
        with ffmpeg_options("a;1"):
            order.append("late")

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(alike) for _ in range(2)]
        for call in (other, late):  # who comes later does not go before who waits
            time.sleep(0.1)
            calls.append(pool.submit(call))
        for one in calls:
            one.result(10)
    assert order == ["alike", "alike", "other", "late"]
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ
