"""Examples that need another machine are checked as far as they go without it."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
import threading
import types
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from runtime.frames import Frame, Segmentation
from runtime.hardware import Hardware
from runtime.packaged import CLIP

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("docker/*.Dockerfile")), ids=lambda p: p.name)
def test_an_image_copies_what_is_there_and_installs_extras_that_exist(path):
    text = path.read_text()
    setup = (EXAMPLES.parent / "setup.cfg").read_text()
    copied = [name for line in re.findall(r"^COPY (.+)$", text, re.M) for name in line.split()[:-1]]
    assert copied
    for name in copied:
        assert (EXAMPLES.parent / name).exists(), name
    extras = re.search(r'"\.\[([^\]]+)\]"', text)[1].replace("${RUNTIME}", "runtime-cpu")
    for extra in [*extras.split(","), "runtime-gpu"]:
        assert re.search(rf"^{extra} =$", setup, re.M), extra
    assert "torch" not in re.sub(r"^#.*$", "", text, flags=re.M)


def test_every_metric_of_the_dashboard_is_served(stream_metrics):
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    asked = " ".join(t["expr"] for panel in dashboard["panels"] for t in panel["targets"])
    names = set(re.findall(r"\b((?:sfda_edge|process)_\w+)", asked))
    assert len(names) > 12
    served = set(re.findall(r"^([a-z_]+)(?:\{| )", stream_metrics, re.M))
    assert names <= served, names - served
    labels = set(re.findall(r"\{\{(\w+)\}\}", json.dumps(dashboard))) - {"instance"}
    assert all(f'{label}="' in stream_metrics for label in labels)


@pytest.fixture
def stream_metrics(monkeypatch, three_classes):
    """The text that a running stream serves, on a machine with all sensors."""
    metrics = pytest.importorskip("runtime.page.metrics", reason="extra serve")
    from runtime.frames import Frame, Segmentation
    from runtime.sources.base import ImageSource
    from runtime.stats import StreamStats

    class Camera(ImageSource):
        name = "camera0"

        def _next_image(self):
            return None

    monkeypatch.setattr(
        metrics,
        "read_hardware",
        lambda: Hardware({"cpu": 50.0}, {"cpu": 1500.0}, {"cpu": 1900.0}, {"in": 7.0}, {"gpu": 0}),
    )
    backend = {"backend": "onnxruntime", "provider": "CPU", "precision": "fp32"}
    served = metrics.StreamMetrics({**backend, "golden_agreement": 1.0})
    image = np.zeros((4, 4, 3), np.uint8)
    result = Segmentation(frame=Frame(0, image, 0), label_map=image[..., 0], timing={"infer": 5.0})
    stats = StreamStats()
    stats.start()
    served.follow(
        SimpleNamespace(
            name="front",
            source=Camera(),
            label_space=three_classes,
            result=result,
            snapshot=lambda: stats.snapshot(1, 0),
        )
    )
    served.add("front", result)
    return served.text().decode()


class Message(SimpleNamespace):
    """Any ROS message: attributes that are set are kept."""

    OK, WARN, ERROR = b"\0", b"\1", b"\2"

    def __init__(self, **fields):
        super().__init__(header=SimpleNamespace(stamp=None, frame_id=""), **fields)


class ExternalShutdown(Exception):  # noqa: N818 - as rclpy's
    pass


class Executor:
    """Spins until ROS shuts down, which it does after so many label maps; or until it is ended."""

    shut_down, most_labels = False, math.inf

    def __init__(self):
        self.ended = threading.Event()

    def add_node(self, node):
        self.node = node

    def spin(self):
        while not self.ended.wait(0.01):
            if len(self.node.topics["~/labels"].sent) >= self.most_labels:
                Executor.shut_down = True
                raise ExternalShutdown

    def shutdown(self):
        self.ended.set()


class Publisher:
    def __init__(self):
        self.sent = []

    def publish(self, message):
        assert not Executor.shut_down, "publisher's context is invalid"
        self.sent.append(message)

    def get_subscription_count(self):
        return 1


class Node:
    """As much of rclpy's node as the example uses."""

    parameters: ClassVar[dict] = {}

    def __init__(self, name):
        self.topics, self.name = {}, name

    def declare_parameter(self, name, default):
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind, topic, quality):
        self.topics[topic] = Publisher()
        return self.topics[topic]

    def get_clock(self):
        now = SimpleNamespace(nanoseconds=10**18, to_msg=lambda: "now")
        return SimpleNamespace(now=lambda: now, clock_type="ros")

    def get_name(self):
        return self.name


@pytest.fixture
def ros(monkeypatch):
    """Modules with the names of ROS 2's."""
    modules = {
        "rclpy": {"ok": lambda: not Executor.shut_down},
        "rclpy.executors": {
            "ExternalShutdownException": ExternalShutdown,
            "SingleThreadedExecutor": Executor,
        },
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": None},
        "rclpy.time": {
            "Time": lambda nanoseconds, clock_type: SimpleNamespace(to_msg=lambda: nanoseconds)
        },
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Message},
        "diagnostic_msgs": {},
        "diagnostic_msgs.msg": dict.fromkeys(
            ("DiagnosticArray", "DiagnosticStatus", "KeyValue"), Message
        ),
    }
    monkeypatch.setattr(Executor, "shut_down", False)
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("ros2_node", EXAMPLES / "ros2_node.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_a_ros_node_publishes_each_label_map_with_its_time(ros, monkeypatch):
    monkeypatch.setattr(Node, "parameters", {"source": str(CLIP), "backend": "onnxruntime"})
    node = ros.SegmentationNode()
    monkeypatch.setattr(Executor, "most_labels", 3)
    node.run()
    labels, images = node.topics["~/labels"].sent, node.topics["~/image"].sent
    assert 3 <= len(labels) == len(images) < 72, "it ends with ROS, before the clip does"
    for label, image in zip(labels, images, strict=True):
        assert (label.encoding, label.height, label.width, label.step) == ("mono8", 192, 384, 384)
        assert len(label.data) == 192 * 384
        assert (image.encoding, image.height, image.width, image.step) == ("rgb8", 360, 480, 1440)
        assert label.header.frame_id == "camera"
        assert 10**18 - 10**10 < label.header.stamp < 10**18
    (status,) = node.topics["~/diagnostics"].sent[0].status
    assert status.message == "live"
    told = {value.key: value.value for value in status.values}
    assert told["backend"].startswith("ONNX Runtime")


def test_a_ros_node_ends_with_its_source(ros, monkeypatch):
    monkeypatch.setattr(Node, "parameters", {"source": str(CLIP), "backend": "onnxruntime"})
    node = ros.SegmentationNode()
    node.run()
    assert len(node.topics["~/labels"].sent) >= 1
    assert not Executor.shut_down
    assert not [thread for thread in threading.enumerate() if "_spin" in thread.name]


def test_a_simulated_clock_that_begins_at_0_gives_no_time_before_it(ros, monkeypatch):
    node = ros.SegmentationNode()
    at_0 = SimpleNamespace(nanoseconds=0, to_msg=lambda: "now")
    clock = SimpleNamespace(now=lambda: at_0, clock_type="ros")
    monkeypatch.setattr(node, "get_clock", lambda: clock)
    image = np.zeros((4, 4, 3), np.uint8)
    result = Segmentation(frame=Frame(0, image, 0), label_map=image[..., 0], timing={})
    node._publish(result)
    assert node.topics["~/labels"].sent[0].header.stamp == 0
