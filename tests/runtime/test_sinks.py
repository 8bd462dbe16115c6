import shutil
from collections import namedtuple

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.errors import SinkError
from runtime.frames import Frame, Segmentation
from runtime.overlay import Overlay
from runtime.sinks.scoring import ScoringSink
from runtime.sinks.video import VideoSink

SECOND_NS = 1_000_000_000


def result(index, captured_ns=0, size_hw=(48, 64), label=0):
    image = np.full((*size_hw, 3), 90, np.uint8)
    labels = np.full((12, 16), label, np.uint8)
    return Segmentation(frame=Frame(index, image, captured_ns), label_map=labels, timing={})


def length_of(path):
    capture = cv2.VideoCapture(str(path))
    return sum(1 for _ in iter(lambda: capture.read()[0], False))


def test_a_live_video_lasts_as_long_as_what_it_shows(tmp_path, three_classes):
    """Three frames a second apart at 10 fps: 10 + 10 + 1 pictures."""
    path = tmp_path / "live.mp4"
    sink = VideoSink(path, Overlay(three_classes), fps=10.0, live=True)
    for index in range(3):
        sink.write(result(index, captured_ns=index * SECOND_NS))
    sink.close()
    assert length_of(path) == 21


def test_a_live_picture_stays_until_the_next_one(tmp_path, three_classes):
    """Class 0 for two seconds, then class 2: blue until the end."""
    path = tmp_path / "live.avi"
    sink = VideoSink(path, Overlay(three_classes, legend=False), fps=10.0, live=True)
    sink.write(result(0, 0, label=0))
    sink.write(result(1, 2 * SECOND_NS, label=2))
    sink.close()
    capture = cv2.VideoCapture(str(path))
    colours = [int(capture.read()[1][20, 30].argmax()) for _ in range(21)]
    assert colours == [0] * 20 + [2], "blue (first in BGR) until second two, then red"


def test_frames_of_another_size_fit_into_the_video(tmp_path, three_classes):
    path = tmp_path / "mixed.avi"
    sink = VideoSink(path, Overlay(three_classes), fps=None, live=False)
    for index, size_hw in enumerate([(48, 64), (96, 128), (30, 30)]):
        sink.write(result(index, size_hw=size_hw))
    sink.close()
    assert length_of(path) == 3


def test_a_full_disk_is_said_and_the_video_is_playable(tmp_path, three_classes, monkeypatch):
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
