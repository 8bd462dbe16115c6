"""StreamMetrics: the figures of all streams of a process, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from runtime.bundle.labels import LabelSpace
from runtime.frames import Segmentation
from runtime.hardware import Hardware, read_hardware
from runtime.sources.base import Source
from runtime.sources.watchdog import State
from runtime.stats import Snapshot

# Seconds: from what a GPU needs for a layer to a camera that lags.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Counters of each stream: name, help, and what counts.
_COUNTERS = (
    ("frames_damaged", "Frames that were left out", lambda s, _: s.damaged),
    ("deadlines_missed", "Frames done after --deadline-ms", lambda _, f: f.late or 0),
    ("results_repeated", "Results that stood for frames", lambda _, f: f.repeated),
    ("reconnects", "Times the source was reopened", lambda s, _: s.reconnects),
)


class Watched(Protocol):
    """A stream whose figures are read when Prometheus asks."""

    name: str
    source: Source
    label_space: LabelSpace

    @property
    def result(self) -> Segmentation | None:
        """The newest."""
        ...

    def snapshot(self) -> Snapshot:
        """The stream's figures."""
        ...


class StreamMetrics:
    """Counts what changes with each frame, and reads the rest when Prometheus asks.

    Every figure of a stream has its name in the label ``source``.

    Args:
        backend: what runs the model, as ``Backend.record`` says.
    """

    def __init__(self, backend: dict[str, Any]) -> None:
        self._backend = backend
        self._streams: list[Watched] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._stages = Histogram(
            "sfda_edge_stage_seconds",
            "Time of each stage of a frame",
            ["source", "stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._age = Histogram(
            "sfda_edge_frame_age_seconds",
            "Time from capture to the sinks",
            ["source"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)  # type: ignore[arg-type]

    def follow(self, stream: Watched) -> None:
        """Read this stream's figures, too."""
        self._streams.append(stream)

    def add(self, name: str, result: Segmentation) -> None:
        """Count one result of a stream; one that stands for a missing frame has no times."""
        if result.repeated:
            return
        for stage, value_ms in result.timing.items():
            self._stages.labels(name, stage).observe(value_ms / 1000)
        self._age.labels(name).observe(result.frame.age_ms / 1000)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is read when it is asked for; Prometheus' client calls this."""
        yield from self._counters()
        yield from self._gauges()
        yield from self._of_backend()
        yield from _of_hardware(read_hardware())

    def _counters(self) -> Iterator[Metric]:
        figures = {stream.name: stream.snapshot() for stream in self._streams}
        frames = CounterMetricFamily(
            "sfda_edge_frames", "Frames of the source", labels=["source", "outcome"]
        )
        for name, found in figures.items():
            frames.add_metric([name, "read"], found.read)
            frames.add_metric([name, "segmented"], found.segmented)
            frames.add_metric([name, "dropped"], found.dropped)
        yield frames
        for metric, text, count in _COUNTERS:
            family = CounterMetricFamily(f"sfda_edge_{metric}", text, labels=["source"])
            for stream in self._streams:
                family.add_metric([stream.name], count(stream.source, figures[stream.name]))
            yield family

    def _gauges(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "sfda_edge_source_state",
            "1 for the state of now, 0 for others",
            labels=["source", "state"],
        )
        ages = GaugeMetricFamily(
            "sfda_edge_newest_frame_age_seconds", "Age of the newest frame now", labels=["source"]
        )
        shares = GaugeMetricFamily(
            "sfda_edge_class_share", "Share of the newest label map", labels=["source", "class"]
        )
        for stream in self._streams:
            now, result = stream.source.state, stream.result
            for state in State:
                states.add_metric([stream.name, str(state)], float(state is now))
            if result is not None:
                ages.add_metric([stream.name], result.frame.age_ms / 1000)
                names = stream.label_space.names
                for name, share in zip(names, result.class_shares(len(names)), strict=True):
                    shares.add_metric([stream.name, name], float(share))
        yield from (states, ages, shares)

    def _of_backend(self) -> Iterator[Metric]:
        facts = {k: str(v) for k, v in self._backend.items() if k != "golden_agreement"}
        yield InfoMetricFamily("sfda_edge_backend", "What runs the model", value=facts)
        agreement = self._backend["golden_agreement"]
        if agreement is not None:
            yield GaugeMetricFamily(
                "sfda_edge_golden_agreement", "Share of the golden frame's labels", value=agreement
            )


def _of_hardware(hardware: Hardware) -> Iterator[Metric]:
    """Temperatures, clocks, power and throttling, where the machine shows them."""
    figures = (
        ("temperature_celsius", "Of each thermal zone", hardware.temperatures_c, 1.0),
        ("clock_hertz", "Of processor cores and GPU", hardware.clocks_mhz, 1e6),
        ("clock_limit_hertz", "Highest clock allowed now", hardware.most_mhz, 1e6),
        ("power_watts", "Of each rail with a sensor", hardware.power_w, 1.0),
        ("throttling_ratio", "How far a part is slowed down", hardware.throttling, 1.0),
    )
    for metric, text, values, factor in figures:
        if values:
            family = GaugeMetricFamily(f"sfda_edge_{metric}", text, labels=["part"])
            for part, value in values.items():
                family.add_metric([part], value * factor)
            yield family
