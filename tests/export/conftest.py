"""A model and images for exporting: the packaged one, which has learnt something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from export.gate.report import ParityReport
from export.graph import to_onnx as onnx_graph
from export.graph.deploy import DeployModel
from export.request import ExportRequest
from export.thresholds import Gate, Thresholds
from runtime.images import resize_image
from sfda_edge.data import open_images
from sfda_edge.data.loading import read_all
from sfda_edge.models.source_model import ModelRequest, load_source


@pytest.fixture(scope="session", autouse=True)
def each_graph_is_exported_once(exported_once):
    """torch's exporter takes ten seconds."""


@pytest.fixture(scope="session")
def packaged():
    """The packaged model at half its size, which is as good for everything here."""
    source = load_source(ModelRequest())
    return replace(source, spec=replace(source.spec, input_hw=(96, 192)))


@pytest.fixture(scope="session")
def frames(packaged) -> list[np.ndarray]:
    """Four packaged source images at the input size, (H, W, 3) uint8."""
    found = list(read_all(open_images("streetsynth:source"), None))[:4]
    return [np.ascontiguousarray(resize_image(f.image, packaged.spec.input_hw)) for f in found]


@pytest.fixture(scope="session")
def calibration(frames) -> list[np.ndarray]:
    """The frames and their mirror images: as many as int8 wants at least."""
    return [*frames, *(np.ascontiguousarray(frame[:, ::-1]) for frame in frames)]


@pytest.fixture(scope="session")
def graph(packaged) -> onnx.ModelProto:
    """The packaged model's, in single precision with label maps alone; never changed."""
    deploy = DeployModel(packaged.network, packaged.spec).eval()
    example = torch.zeros((1, *packaged.spec.input_hw, 3), dtype=torch.uint8)
    return onnx_graph.export_graph(deploy, example)


@pytest.fixture(scope="session")
def report():
    """Makes a report of nothing but a label agreement, of which 99 % are needed."""

    def make(agreement: float) -> ParityReport:
        share = {"road": 1.0}
        gate = Gate(label_agreement=0.99, class_iou=0.5, miou_loss=1.0)
        return ParityReport(
            label_agreement=agreement,
            worst_image=agreement,
            border_agreement=None,
            interior_agreement=None,
            class_iou=share,
            class_share=share,
            confidence_drift=None,
            health_drift={},
            miou_change=None,
            not_finite=(),
            num_images=1,
            gate=gate,
        )

    return make


@pytest.fixture
def request_(packaged, frames) -> ExportRequest:
    # Whether int8 is fast on the machine of the tests has a test of its own.
    any_speed = Thresholds(int8_time_ratio=0)
    return ExportRequest(
        model=packaged.network, spec=packaged.spec, images=frames, thresholds=any_speed
    )
