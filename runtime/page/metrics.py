"""StreamMetrics: the figures of a stream for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from runtime.bundle.labels import LabelSpace
from runtime.frames import Segmentation
from runtime.sources.base import Source
from runtime.sources.watchdog import State
from runtime.stats import Snapshot

# Seconds: from what a GPU needs for a layer to a camera that lags.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class StreamMetrics:
    """Collects what changes with each frame, and reads the rest when Prometheus asks.

    Args:
        source: whose state is told.
        label_space: names of the classes.
        backend: what runs the model, as ``Backend.record`` says.
        snapshot: the stream's figures.
    """

    def __init__(
        self,
        source: Source,
        label_space: LabelSpace,
        *,
        backend: dict[str, Any],
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self._source, self._names, self._backend = source, label_space.names, backend
        self._snapshot = snapshot
        self._result: Segmentation | None = None
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._stages = Histogram(
            "sfda_edge_stage_seconds",
            "Time of each stage of a frame",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._age = Histogram(
            "sfda_edge_frame_age_seconds",
            "Time from capture to the sinks",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)  # type: ignore[arg-type]

    def add(self, result: Segmentation) -> None:
        """Count one result; one that stands for a missing frame has no times."""
        self._result = result
        if result.repeated:
            return
        for stage, value_ms in result.timing.items():
            self._stages.labels(stage).observe(value_ms / 1000)
        self._age.observe(result.frame.age_ms / 1000)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is read when it is asked for; Prometheus' client calls this."""
        figures = self._snapshot()
        frames = CounterMetricFamily("sfda_edge_frames", "Frames of the source", labels=["outcome"])
        frames.add_metric(["read"], figures.read)
        frames.add_metric(["segmented"], figures.segmented)
        frames.add_metric(["dropped"], figures.dropped)
        yield frames
        yield CounterMetricFamily(
            "sfda_edge_frames_damaged", "Frames that were left out", value=self._source.damaged
        )
        yield CounterMetricFamily(
            "sfda_edge_deadlines_missed", "Frames done after --deadline-ms", value=figures.late or 0
        )
        yield CounterMetricFamily(
            "sfda_edge_results_repeated", "Results that stood for frames", value=figures.repeated
        )
        yield CounterMetricFamily(
            "sfda_edge_reconnects", "Times the source was reopened", value=self._source.reconnects
        )
        now = self._source.state
        states = GaugeMetricFamily("sfda_edge_source_state", "1 for the state", labels=["state"])
        for state in State:
            states.add_metric([str(state)], float(state is now))
        yield states
        if self._result is not None:
            yield GaugeMetricFamily(
                "sfda_edge_newest_frame_age_seconds",
                "Age of the newest frame now",
                value=self._result.frame.age_ms / 1000,
            )
        yield self._shares()
        yield from self._of_backend()

    def _shares(self) -> Metric:
        shares = GaugeMetricFamily(
            "sfda_edge_class_share", "Share of the newest label map", labels=["class"]
        )
        if self._result is not None:
            of_all = self._result.class_shares(len(self._names))
            for name, share in zip(self._names, of_all, strict=True):
                shares.add_metric([name], float(share))
        return shares

    def _of_backend(self) -> Iterator[Metric]:
        facts = {k: str(v) for k, v in self._backend.items() if k != "golden_agreement"}
        yield InfoMetricFamily("sfda_edge_backend", "What runs the model", value=facts)
        agreement = self._backend["golden_agreement"]
        if agreement is not None:
            yield GaugeMetricFamily(
                "sfda_edge_golden_agreement", "Share of the golden frame's labels", value=agreement
            )
