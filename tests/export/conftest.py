"""A model and images for exporting: the packaged one, which has learnt something."""

from __future__ import annotations

import numpy as np
import pytest

from export.bundle import ExportRequest
from runtime.images import resize_image
from sfda_edge.data import open_images
from sfda_edge.data.loading import read_all
from sfda_edge.model_source import ModelFlags, load_source


@pytest.fixture(scope="session")
def packaged():
    return load_source(ModelFlags(None))


@pytest.fixture(scope="session")
def frames(packaged) -> list[np.ndarray]:
    """Four packaged source images at the input size, (H, W, 3) uint8."""
    found = list(read_all(open_images("streetsynth:source"), None))[:4]
    return [np.ascontiguousarray(resize_image(f.image, packaged.spec.input_hw)) for f in found]


@pytest.fixture
def request_(packaged, frames) -> ExportRequest:
    return ExportRequest(packaged.model, packaged.spec, frames)
