import contextlib
import functools
import http.server
import os
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from runtime.errors import SourceError
from runtime.sources.grammar import open_source
from runtime.sources.settings import SourceSettings
from runtime.sources.video_file import video_frames


@pytest.fixture
def video(tmp_path) -> Path:
    """Ten 64x48 frames at 20 fps; frame i is grey 20 i."""
    path = tmp_path / "drive.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (64, 48))
    for index in range(10):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


def grey_levels(source):
    return [round(float(f.image.mean()) / 20) for f in iter(source.read, None)]


def test_an_image_is_told_from_a_video(tmp_path):
    path = tmp_path / "street.PNG"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(SourceError, match=r"street\.PNG is an image; name its folder, .*\*\.PNG"):
        open_source(str(path))


def test_a_video_gives_every_frame_in_order_then_ends(video):
    with open_source(str(video)) as source:
        assert not source.live
        assert source.fps == pytest.approx(20)
        assert grey_levels(source) == list(range(10))
        assert source.read() is None


def test_frames_are_rgb(tmp_path):
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "0.png")
    with open_source(str(tmp_path)) as source:
        np.testing.assert_array_equal(source.read().image, red)


def test_the_packaged_clip_is_red_where_it_should_be():
    """Dusk pictures are reddish: swapped channels would make them blue."""
    with open_source("streetsynth") as source:
        means = source.read().image.reshape(-1, 3).mean(0)
    assert means[0] > means[2]


def test_a_videos_url_is_read_whole(video):
    handler = functools.partial(QuietHandler, directory=str(video.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{video.name}"
        with open_source(url) as source:
            assert not source.live
            assert grey_levels(source) == list(range(10))
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_dead_stream_is_an_error_without_its_password():
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://user:secret@127.0.0.1:9/live")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:9/live" in str(caught.value)


def test_a_missing_camera_says_what_to_try():
    with pytest.raises(SourceError, match=r"camera57 does not open.*streetsynth"):
        open_source("camera57")


@pytest.mark.parametrize("spec", ["nothing.mp4", "cameraX", "", "webcam", "camera99999999999"])
def test_an_unknown_source_lists_what_there_is(spec):
    with pytest.raises(SourceError, match="give camera0"):
        open_source(spec)


def test_a_file_that_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(SourceError, match="not a video"):
        open_source(str(path))


def test_a_truncated_image_in_a_folder_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with open_source(str(tmp_path)) as source, pytest.raises(SourceError, match=r"broken.png"):
        source.read()


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no images"):
        open_source(str(tmp_path))


def test_a_container_that_promises_more_than_it_holds_ends_cleanly(real_data):
    path = real_data / "data/clips/project_small1.mp4"
    assert sum(1 for _ in video_frames(path)) == 88


def test_a_file_that_loops_goes_on_with_its_numbers_and_times():
    settings = SourceSettings(loop=True)
    with open_source("streetsynth") as once:
        frames = list(iter(once.read, None))
    with open_source("streetsynth", settings) as source:
        looped = [source.read() for _ in range(len(frames) + 3)]
    assert [frame.index for frame in looped] == list(range(len(frames) + 3))
    times_s = [frame.time_s for frame in looped]
    assert times_s == sorted(set(times_s))
    np.testing.assert_array_equal(looped[len(frames) + 2].image, frames[2].image)


def test_what_is_wrong_with_a_file_that_loops_is_said(in_empty_folder):
    with pytest.raises(SourceError, match="does not exist"):
        open_source("nowhere.mp4", SourceSettings(loop=True))
    (in_empty_folder / "damaged").mkdir()
    (in_empty_folder / "damaged" / "0.png").write_bytes(b"no image")
    with open_source("damaged", SourceSettings(loop=True)) as source, pytest.raises(SourceError):
        source.read()


def test_a_damaged_image_of_a_folder_is_left_out_and_the_others_keep_their_places(
    in_empty_folder, caplog
):
    for index in range(5):
        Image.new("RGB", (8, 6), (40 * index, 0, 0)).save(f"{index}.png")
    Path("0.png").write_bytes(b"no image")
    Path("3.png").write_bytes(Path("3.png").read_bytes()[:40])
    with open_source(".", SourceSettings()) as source:
        frames = list(iter(source.read, None))
        assert source.damaged == 2
    assert [frame.index for frame in frames] == [1, 2, 4]
    assert [frame.image[0, 0, 0] for frame in frames] == [40, 80, 160]
    assert "left out: 3.png" in caplog.text
    assert "2 damaged frames were left out, 3 are whole" in caplog.text
    with open_source(".", SourceSettings(loop=True)) as source:
        for _ in range(7):
            source.read()
        assert source.damaged == 5, "0, 3 twice each, and 0 of the third round"


def test_damage_behind_the_last_whole_image_counts_in_each_round(in_empty_folder):
    Image.new("RGB", (8, 6)).save("0.png")
    Path("1.png").write_bytes(b"no image")
    with open_source(".", SourceSettings(loop=True)) as source:
        for _ in range(3):
            source.read()
        assert source.damaged == 2


def test_two_stars_are_a_folder_with_its_subfolders(in_empty_folder):
    Path("drive/late").mkdir(parents=True)
    for name in ("drive/0.png", "drive/late/1.png"):
        Image.new("RGB", (8, 6)).save(name)
    with open_source("drive/**", SourceSettings()) as source:
        assert len(list(iter(source.read, None))) == 2


WORDS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"(camera|csi|replay:|/dev/video|/dev/v4l/by-id/|\.\./)[\w./*%\x00-]{0,12}"),
    st.sampled_from(["", ".", "*", "replay:", "/dev/null", "/dev/zero", "replay:/dev/zero", "~"]),
)


@pytest.mark.parametrize("text", ["replay:\0", "/dev/v4l/by-id/\0", "a\0", "gst:\0", "rtsp://a/\0"])
def test_a_null_byte_is_an_error(text):
    with pytest.raises(SourceError, match="null byte"):
        open_source(text)


@pytest.mark.parametrize("text", ["/dev/v4l/by-id/²", "/dev/v4l/by-id/video²", "camera²"])
def test_a_digit_that_is_no_number_is_an_error(text):
    with pytest.raises(SourceError):
        open_source(text)


@given(WORDS, st.booleans())
def test_any_text_is_a_source_or_an_error(tmp_path_factory, text, loop):
    """Addresses and pipelines have tests of their own: they would be opened."""
    assume(not re.match("gst:|(rtsps?|https?)://", text, re.IGNORECASE))
    folder = tmp_path_factory.mktemp("any")
    before = Path.cwd()
    os.chdir(folder)  # contextlib.chdir is of Python 3.11
    try:
        with (
            contextlib.suppress(SourceError),
            open_source(text, SourceSettings(loop=loop)) as source,
        ):
            assert source.name
    finally:
        os.chdir(before)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "text", ["replay:drive.mcap", "rtsp://me:hunter2@cam/1", "gst:videotestsrc"]
)
def test_only_what_ends_can_loop(text):
    with pytest.raises(SourceError, match="--loop is for videos and images") as raised:
        open_source(text, SourceSettings(loop=True))
    assert "hunter2" not in str(raised.value)
