"""A network small enough to train in a test, under a module path as a user's own would be."""

from __future__ import annotations

import copy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.data.target import TargetImages
from sfda_edge.models import ModelSpec, build_model
from sfda_edge.models.inference import Normalise
from sfda_edge.runs.fabric import open_fabric
from sfda_edge.runs.progress import silent
from sfda_edge.task import AdaptationTask

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def each_graph_is_exported_once(exported_once):
    """torch's exporter takes ten seconds."""


@pytest.fixture(scope="session")
def tiny_spec(three_classes) -> ModelSpec:
    return ModelSpec("user_network:build", three_classes, (32, 64))


@pytest.fixture
def tiny_model(tiny_spec):
    return warm_model(tiny_spec)


def warm_model(tiny_spec):
    """Not trained, but with statistics of the images that it will see, as a trained one has."""
    torch.manual_seed(0)
    model = build_model(tiny_spec).train()
    images = np.stack([sample.image() for sample in drawn_images(10).samples])
    model[1].momentum = 1.0  # of the last batch alone
    with torch.no_grad():
        model(Normalise(tiny_spec)(torch.from_numpy(images).permute(0, 3, 1, 2)))
    model[1].momentum = 0.1
    model[1].num_batches_tracked.zero_()  # some checkpoints do not have it
    return model.eval()


def drawn_images(count: int, height: int = 40, width: int = 70) -> ImageSet:
    """Bright boxes on dark noise: enough structure for a network to disagree with itself about."""
    generator = np.random.default_rng(5)
    samples = []
    for number in range(count):
        image = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
        top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
        image[top : top + height // 2, left : left + width // 2] += 130
        samples.append(Sample(f"{number:03d}", partial(np.copy, image)))
    return ImageSet("drawn", tuple(samples))


@pytest.fixture
def make_task(tmp_path, tiny_model, tiny_spec):
    """Tasks on the tiny network and ten drawn images, each with a copy of the same weights."""

    def make(
        model=None, spec=tiny_spec, count=10, seed=0, work=tmp_path / "work", precision="fp32"
    ):
        target = TargetImages(drawn_images(count), spec.input_hw)
        model = copy.deepcopy(tiny_model) if model is None else model
        fabric = open_fabric("cpu", precision)
        return AdaptationTask(
            model,
            spec,
            target,
            fabric=fabric,
            seed=seed,
            work_dir=work,
            bars=lambda _title, _total: silent,
        )

    return make
