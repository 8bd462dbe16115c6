"""Targets on which adapting can only do harm: whatever the method, the answers stay as right."""

import numpy as np
import pytest
import torch
from PIL import Image

from sfda_edge.cli import main as cli
from sfda_edge.data import open_images
from sfda_edge.evaluation import Predictor
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models.source_model import ModelRequest, load_source

pytestmark = pytest.mark.slow

ROAD = LABEL_SPACES["camvid"].names.index("road")


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """Frames of the packaged source scenes that show the road before the camera, and no more."""
    folder = tmp_path_factory.mktemp("road")
    for index, sample in enumerate(open_images("streetsynth:source").samples[:8]):
        image = sample.image()
        height, width = image.shape[:2]
        part = image[3 * height // 4 :, 2 * width // 5 : 3 * width // 5]
        Image.fromarray(part).save(folder / f"{index:02d}.png")
    return folder


def share_of_road(weights, images):
    source = load_source(ModelRequest(weights, size_hw=(96, 192)))
    predictor = Predictor(source.network, source.spec, torch.device("cpu"))
    maps = [predictor.label_map(sample.image()) for sample in open_images(str(images)).samples]
    return float(np.mean([(labels == ROAD).mean() for labels in maps]))


SMALL_FAKES = ["--set", "fake_hw=[32,64]", "--set", "batch_size=4"]


@pytest.mark.parametrize("method", ["multiview", "bn", "tent", "maxsquare", "selftrain", "sfda"])
def test_bare_road_stays_road(method, road, in_empty_folder):
    """Batches of bare road have statistics that make five classes of it."""
    before = share_of_road(None, road)
    assert before > 0.97
    steps = [] if method == "bn" else ["--set", "steps=16"]
    steps += SMALL_FAKES if method == "sfda" else []
    flags = ["--method", method, "--size", "192x96", "--images", str(road), "--out", "run"]
    assert cli.main(["adapt", *flags, *steps]) == 0
    assert share_of_road(in_empty_folder / "run", road) > before - 0.005
