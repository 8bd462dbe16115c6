"""A ROS 2 node: labels, confidences and states of a stream as topics.

    python3 ros2_node.py --ros-args -p source:=/dev/video0 -p bundle:=/srv/bundle

Topics, relative to the node's name:

    labels       sensor_msgs/Image, mono8: class numbers at the model's size
    confidence   sensor_msgs/Image, mono8: 255 times the label's probability, if the bundle has it
    image        sensor_msgs/Image, rgb8: the frame, while somebody listens
    diagnostics  diagnostic_msgs/DiagnosticArray: state, rate, age, backend, once a second

Messages have the time of capture, on the clock of ROS. A result that stands for a missing frame is
not published as labels: ``diagnostics`` tells of it.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import Image

import runtime
from runtime.frames import Segmentation

_LEVELS = {
    "live": DiagnosticStatus.OK,
    "frozen": DiagnosticStatus.WARN,
    "black": DiagnosticStatus.WARN,
}
_END_S = 5.0  # for the thread that spins


class SegmentationNode(Node):
    """Publishes the results of one stream."""

    def __init__(self) -> None:
        super().__init__("segmentation")
        self._source = self.declare_parameter("source", "camera0").value
        self._bundle = self.declare_parameter("bundle", "").value or None
        self._backend = self.declare_parameter("backend", "auto").value
        self._frame_id = self.declare_parameter("frame_id", "camera").value
        self._topics = {
            name: self.create_publisher(Image, f"~/{name}", qos_profile_sensor_data)
            for name in ("labels", "confidence", "image")
        }
        self._diagnostics = self.create_publisher(DiagnosticArray, "~/diagnostics", 10)
        self._told_s = 0.0

    def run(self) -> None:
        """Publish until the source ends or ROS shuts down.

        Raises:
            runtime.StreamError: the bundle, the backend or the source does not open.
        """
        with runtime.open_stream(
            self._source, bundle=self._bundle, backend=self._backend, on_loss="hold"
        ) as stream:
            # Spinning follows a simulated clock, and ends when ROS shuts down.
            executor = SingleThreadedExecutor()
            executor.add_node(self)
            spinning = threading.Thread(target=_spin, args=(executor, stream), daemon=True)
            spinning.start()
            try:
                self._publish_all(stream)
            finally:
                executor.shutdown()
                spinning.join(_END_S)

    def _publish_all(self, stream: runtime.Stream) -> None:
        for result in stream:
            if not rclpy.ok():
                return
            if not result.repeated:
                self._publish(result)
            if time.monotonic() - self._told_s >= 1:
                self._told_s = time.monotonic()
                self._tell(stream, result)

    def _publish(self, result: Segmentation) -> None:
        age_ns = time.monotonic_ns() - result.frame.captured_ns
        now_ns = self.get_clock().now().nanoseconds
        captured_ns = max(0, now_ns - age_ns)  # a simulated clock begins at 0
        stamp = Time(nanoseconds=captured_ns, clock_type=self.get_clock().clock_type).to_msg()
        self._send("labels", result.label_map, "mono8", stamp)
        if result.confidence is not None:
            self._send("confidence", result.confidence, "mono8", stamp)
        if self._topics["image"].get_subscription_count():
            self._send("image", result.frame.image, "rgb8", stamp)

    def _send(self, topic: str, pixels: np.ndarray, encoding: str, stamp: object) -> None:
        message = Image()
        message.header.stamp, message.header.frame_id = stamp, self._frame_id
        message.height, message.width = pixels.shape[:2]
        message.encoding, message.step = encoding, pixels.strides[0]
        message.data = pixels.tobytes()
        self._topics[topic].publish(message)

    def _tell(self, stream: runtime.Stream, result: Segmentation) -> None:
        figures = stream.figures
        level = _LEVELS.get(stream.state, DiagnosticStatus.ERROR)
        values = {
            "backend": stream.backend,
            "frames a second": f"{figures.fps:.1f}",
            "frame age (ms)": f"{result.frame.age_ms:.1f}",
            "segmented": str(figures.segmented),
            "dropped": str(figures.dropped),
        }
        status = DiagnosticStatus(
            level=level,
            name=f"{self.get_name()}: stream",
            message=stream.state,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _spin(executor: SingleThreadedExecutor, stream: runtime.Stream) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    finally:
        stream.close()


def main() -> None:
    """Run the node."""
    rclpy.init()
    node = SegmentationNode()
    try:
        node.run()
    except runtime.StreamError as error:
        node.get_logger().fatal(str(error))
        raise SystemExit(2) from None
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
