"""A network small enough to train in a test, under a module path as a user's own would be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sfda_edge.models import ModelSpec, build_model

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def tiny_spec(three_classes) -> ModelSpec:
    return ModelSpec("user_network:build", three_classes, (24, 40))


@pytest.fixture
def tiny_model(tiny_spec):
    torch.manual_seed(0)
    return build_model(tiny_spec).eval()
