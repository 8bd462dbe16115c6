import contextlib
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime import stream
from runtime.errors import SinkError
from runtime.frames import Frame, Segmentation
from runtime.images import read_image, read_label_map
from runtime.overlay import Overlay
from runtime.sinks import encoders
from runtime.sinks.labels import open_label_sink
from runtime.sinks.scoring import ScoringSink
from runtime.sinks.split import SplitSink
from runtime.sinks.video import VideoSink
from runtime.sources.video_file import video_frames

SECOND_NS = 1_000_000_000


def result(index, captured_ns=0, size_hw=(48, 64), label=0):
    image = np.full((*size_hw, 3), 90, np.uint8)
    labels = np.full((12, 16), label, np.uint8)
    return Segmentation(frame=Frame(index, image, captured_ns), label_map=labels, timing={})


def length_of(path):
    capture = cv2.VideoCapture(str(path))
    return sum(1 for _ in iter(lambda: capture.read()[0], False))


@pytest.fixture(params=["PyAV", "OpenCV"])
def encoder(request, monkeypatch):
    if request.param == "OpenCV":
        monkeypatch.setattr(encoders, "has_av", lambda: False)
    return request.param


def times_and_colours(path, row=20):
    """What a player shows, and from when on."""
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        there, picture = capture.read()
        if not there:
            return found
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        found.append((time_s, int(picture[row, 30].argmax())))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_live_video_lasts_as_long_as_what_it_shows(encoder, suffix, tmp_path, three_classes):
    """Class 0 for two seconds, then class 2: blue (first in BGR) until second two, then red."""
    path = tmp_path / f"live{suffix}"
    sink = VideoSink(path, Overlay(three_classes, legend=False), fps=10.0, live=True)
    for index, label in enumerate((0, 0, 2)):
        sink.write(result(index, captured_ns=index * SECOND_NS, label=label))
    sink.close()
    shown = times_and_colours(path)
    if encoder == "PyAV" and suffix != ".avi":
        assert [(pytest.approx(s, abs=0.01), c) for s, c in shown] == [(0, 0), (1, 0), (2, 2)]
    else:
        assert [colour for _, colour in shown] == [0] * 20 + [2]


def test_a_file_with_a_variable_rate_keeps_its_times(encoder, tmp_path, three_classes):
    times_s = [10.0, 10.1, 10.2, 11.0, 13.0]
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, Overlay(three_classes), fps=10.0, live=False)
    for index, time_s in enumerate(times_s):
        one = result(index)
        sink.write(replace(one, frame=replace(one.frame, time_s=time_s)))
    sink.close()
    shown = times_and_colours(path)
    assert shown[-1][0] - shown[0][0] == pytest.approx(3.0, abs=0.11)


def test_results_that_are_repeated_keep_a_live_video_going(tmp_path, three_classes, monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    path = tmp_path / "live.mp4"
    sink = VideoSink(path, Overlay(three_classes), fps=10.0, live=True)
    sink.write(result(0))
    for now_s[0] in (1.0, 2.0, 3.0):
        sink.write(replace(result(0), repeated=True, state="lost"))
    sink.close()
    assert times_and_colours(path)[-1][0] == pytest.approx(3, abs=0.11)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_frames_of_another_or_an_odd_size_fit_into_the_video(
    encoder, suffix, tmp_path, three_classes
):
    path = tmp_path / f"mixed{suffix}"
    sink = VideoSink(path, Overlay(three_classes), fps=None, live=False)
    for index, size_hw in enumerate([(49, 65), (96, 128), (30, 30)]):
        sink.write(result(index, size_hw=size_hw))
    sink.close()
    assert length_of(path) == 3


@pytest.mark.parametrize(("suffix", "installed"), [(".mp4", False), (".avi", True), (".mp4", True)])
def test_a_codec_that_a_kill_leaves_unplayable_is_said(
    suffix, installed, tmp_path, three_classes, monkeypatch, caplog
):
    monkeypatch.setattr(encoders, "has_av", lambda: installed)
    sink = VideoSink(tmp_path / f"out{suffix}", Overlay(three_classes), fps=10.0, live=False)
    sink.write(result(0))
    sink.close()
    assert ("unplayable" in caplog.text) == (suffix == ".avi" or not installed)
    assert ("with PyAV" in caplog.text) == (not installed)


def noisy(index):
    """Compresses badly, so that a limit is soon reached."""
    image = np.random.default_rng(index).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    labels = np.zeros((12, 16), np.uint8)
    return Segmentation(frame=Frame(index, image, 0), label_map=labels, timing={})


def write_noise(sink, count):
    """How many pictures were written, and the error that ended it."""
    for index in range(count):
        try:
            sink.write(noisy(index))
        except SinkError as error:
            return index, str(error)
    return count, ""


def test_where_nothing_was_written_nothing_plays(tmp_path, three_classes):
    pytest.importorskip("av")
    (tmp_path / "gone").mkdir()
    sink = VideoSink(tmp_path / "gone" / "a.mp4", Overlay(three_classes), fps=10.0, live=False)
    (tmp_path / "gone").rmdir()
    _, error = write_noise(sink, 1)
    assert "cannot write" in error
    assert "plays" not in error


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_is_an_error_and_what_was_written_plays(
    suffix, tmp_path, three_classes, full_disk
):
    path = tmp_path / f"full{suffix}"
    sink = VideoSink(path, Overlay(three_classes), fps=10.0, live=False)
    with full_disk(2_000_000):
        written, error = write_noise(sink, 500)
        with contextlib.suppress(SinkError):  # the end of the file has no room, either
            sink.close()
    assert 5 < written < 500
    assert "too large; what was written before plays" in error
    assert length_of(path) >= written - 3


def test_opencvs_encoder_finds_out_after_it_has_closed_the_file(
    tmp_path, three_classes, full_disk, monkeypatch
):
    monkeypatch.setattr(encoders, "has_av", lambda: False)
    sink = VideoSink(tmp_path / "full.avi", Overlay(three_classes), fps=10.0, live=False)
    with full_disk(500_000):
        assert write_noise(sink, 60) == (60, "")
        with pytest.raises(SinkError, match=r"holds \d+ of 60 pictures"):
            sink.close()


def test_opencvs_encoder_stops_before_the_disk_is_full(tmp_path, three_classes, monkeypatch):
    monkeypatch.setattr(encoders, "has_av", lambda: False)
    path = tmp_path / "full.mp4"
    sink = VideoSink(path, Overlay(three_classes), fps=None, live=False)
    for index in range(50):
        sink.write(result(index))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1 << 20))
    with pytest.raises(SinkError, match="1 MB left"):
        sink.write(result(50))
    sink.close()
    assert length_of(path) == 50


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "out\udcff.mp4"])
def test_a_name_that_cannot_be_written_is_an_error(encoder, name, tmp_path, three_classes):
    with pytest.raises(SinkError, match=r"cannot (write|open)"):
        VideoSink(tmp_path / name, Overlay(three_classes), fps=None, live=False).write(result(0))


def test_scores_are_counted_at_the_labels_size(tmp_path, three_classes):
    labels = np.zeros((24, 32), np.uint8)
    labels[:, 16:] = 1
    labels[0] = 255
    Image.fromarray(labels).save(tmp_path / "0.png")
    sink = ScoringSink(tmp_path, three_classes, ignore_index=255)
    sink.write(result(0, label=0))
    assert sink.confusion.scores().pixel_accuracy == pytest.approx(0.5)
    with pytest.raises(SinkError, match="frame 1 has no label map"):
        sink.write(result(1))


class Noting:
    """A sink that writes frame numbers to a file."""

    def __init__(self, path):
        self.file = path.open("x")

    def write(self, result):
        self.file.write(f"{result.frame.index}\n")

    def close(self):
        self.file.close()


def test_a_new_file_is_begun_in_time_and_none_is_overwritten(tmp_path):
    now_s, hour = 0.0, 0
    sink = SplitSink(lambda: tmp_path / f"{hour:02d}.txt", Noting, period_s=60, clock=lambda: now_s)
    for index in range(10):
        now_s, hour = 30.0 * index, index // 4  # the name changes every two minutes
        sink.write(result(index))
    hour, now_s = 0, 1000.0  # the clock of the day was set back: that file is there
    sink.write(result(10))
    sink.close()
    found = {path.name: path.read_text().split() for path in sorted(tmp_path.iterdir())}
    assert found == {
        "00-2.txt": ["10"],
        "00.txt": ["0", "1", "2", "3"],
        "01.txt": ["4", "5", "6", "7"],
        "02.txt": ["8", "9"],
    }


def test_a_restart_begins_a_file_of_its_own(tmp_path):
    for count in range(3):
        sink = SplitSink(lambda: tmp_path / "drive-10.txt", Noting, period_s=60)
        sink.write(result(count))
        sink.close()
    found = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert found == {"drive-10.txt": ["0"], "drive-10-2.txt": ["1"], "drive-10-3.txt": ["2"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jsonl", "out.jsonl"], r"--jsonl out\.jsonl would have the same name then; add codes"),
        (["--jsonl", "out-%Y.jsonl"], r"such as out-%Y-%Y%m%d-%H%M%S\.jsonl"),
        (["--jsonl", "-"], "there is no file to split"),
        ([], "there is no file to split"),
    ],
)
def test_split_files_need_changing_names(in_empty_folder, capsys, words, message):
    assert stream.main(["streetsynth", "--frames", "2", "--split-minutes", "1", *words]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "minutes", "changes"),
    [
        ("%H%M.mcap", 60, True),
        ("%H.mcap", 60, True),
        ("%H.mcap", 30, False),  # between ten and half past ten; from half past on it would
        ("%M.mcap", 60, False),  # the same minute of the next hour
        ("%Y%m%d.mcap", 60, False),
        ("%Y%m%d.mcap", 24 * 60, True),
        ("100%%.mcap", 60, False),
    ],
)
def test_whether_a_name_changes_does_not_depend_on_the_time_of_day(name, minutes, changes, capsys):
    command = ["nowhere.mp4", "--record", name, "--split-minutes", str(minutes)]
    assert stream.main(command) == 2
    assert ("would have the same name" in capsys.readouterr().err) != changes


def test_split_files_have_the_times_of_their_beginning(in_empty_folder):
    command = ["streetsynth", "--frames", "2", "--split-minutes", "0.05"]
    assert stream.main([*command, "--jsonl", "out-%H%M%S.jsonl"]) == 0
    (only,) = in_empty_folder.iterdir()
    assert re.fullmatch(r"out-\d{6}\.jsonl", only.name)


@pytest.mark.parametrize("name", ["labels", "labels.mkv"])
def test_label_maps_come_back_as_they_were(in_empty_folder, name):
    if name.endswith(".mkv"):
        av = pytest.importorskip("av")
    random = np.random.default_rng(0)
    maps = [random.integers(0, 256, (37, 51)).astype(np.uint8) for _ in range(4)]
    sink = open_label_sink(Path(name), 10.0, live=False)
    for index, label_map in enumerate(maps):
        one = replace(result(index), label_map=label_map)
        sink.write(one)
        sink.write(replace(one, label_map=255 - label_map, repeated=True))  # not its own
    sink.close()
    if name.endswith(".mkv"):
        with av.open(name) as container:
            found = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    else:
        found = [read_label_map(path) for path in sorted(Path(name).iterdir())]
    assert len(found) == 4
    for expected, label_map in zip(maps, found, strict=True):
        np.testing.assert_array_equal(label_map, expected)


def test_label_maps_of_two_runs_are_not_mixed(in_empty_folder, caplog):
    for count in (4, 2, 3):
        assert stream.main(["streetsynth", "--labels", "maps", "--frames", str(count)]) == 0
    found = [len(list(Path(name).glob("*.png"))) for name in ("maps", "maps-2", "maps-3")]
    assert found == [4, 2, 3]
    Path("empty").mkdir()
    assert stream.main(["streetsynth", "--labels", "empty", "--frames", "1"]) == 0
    assert len(list(Path("empty").iterdir())) == 1


def test_label_maps_are_not_written_through_a_link(in_empty_folder):
    Path("victim.txt").write_text("kept")
    Path("maps").mkdir()
    for name in (".00000000.png.part", "00000000.part"):
        Path("maps", name).symlink_to("../victim.txt")
    assert stream.main(["streetsynth", "--labels", "maps", "--frames", "1"]) == 0
    assert Path("victim.txt").read_text() == "kept"
    assert read_label_map(Path("maps/00000000.png")).shape == (192, 384)


def test_label_maps_beside_those_of_this_very_folder_get_a_folder_of_their_own(
    tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/1.png").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert stream.main(["streetsynth", "--labels", ".", "--frames", "1"]) == 0
    assert [path.name for path in (tmp_path / "here-2").iterdir()] == ["00000000.png"]


@pytest.mark.parametrize("name", ["cam-12:30:05.mp4", "tcp:9.mkv", "file:a.mp4"])
def test_a_name_with_a_colon_is_a_file(encoder, name, in_empty_folder, three_classes):
    sink = VideoSink(Path(name), Overlay(three_classes), 25.0, live=False)
    for index in range(3):
        sink.write(result(index, index * 40_000_000))
    sink.close()
    assert length_of(in_empty_folder / name) == 3


@pytest.mark.slow
def test_a_live_mp4_keeps_no_index_in_memory(tmp_path):
    """Every fragment had an entry in a trailer, which was written at the end."""
    pytest.importorskip("av")
    encoder = encoders.AvEncoder(tmp_path / "long.mp4", (16, 16), 25.0)
    picture = np.zeros((16, 16, 3), np.uint8)
    for index in range(3000):
        encoder.write(picture, index / 25)
    before = (tmp_path / "long.mp4").stat().st_size
    encoder.close()
    assert (tmp_path / "long.mp4").stat().st_size - before < 20_000
    assert sum(1 for _ in video_frames(tmp_path / "long.mp4")) == 3000


def test_labels_that_cannot_be_written_are_an_error(in_empty_folder):
    Path("file").touch()
    with pytest.raises(SinkError, match="cannot make file"):
        open_label_sink(Path("file"), None, live=True)
    with pytest.raises(SinkError, match=r"name a folder, or a lossless video out\.mkv"):
        open_label_sink(Path("out.mp4"), None, live=True)
    with pytest.raises(SinkError, match="the folder missing does not exist"):
        open_label_sink(Path("missing/out.mkv"), None, live=True)


def test_labels_do_not_go_among_the_images_of_a_pattern(in_empty_folder, capsys):
    Path("drive").mkdir()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save("drive/00000000.png")
    assert stream.main(["drive/*.png", "--labels", "drive"]) == 2
    assert "--labels drive is in the source, drive; name another file" in capsys.readouterr().err
    assert read_image(Path("drive/00000000.png")).shape == (24, 32, 3)


def test_sinks_share_one_drawing(three_classes):
    overlay = Overlay(three_classes)
    first, second = result(0), result(0)
    assert overlay.draw_result(first) is overlay.draw_result(first)
    assert overlay.draw_result(first) is not overlay.draw_result(second)


def test_label_maps_that_cannot_be_listed_are_an_error(tmp_path, three_classes, monkeypatch):
    def refusing(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refusing)  # as for anybody but root
    with pytest.raises(SinkError, match="cannot be read: Permission denied"):
        ScoringSink(tmp_path, three_classes, 255)
