"""What others write around a network answers as our own way does."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.peers import frame_ways
from sfda_edge.evaluation import Predictor
from sfda_edge.models import ModelSpec


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("stride", [1, 4])
def test_the_way_with_numpy_gives_the_models_labels(stride, bgr, three_classes):
    """Blue first, and logits on a coarser grid, too."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, stride, 1).eval()
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
    spec = ModelSpec("x", three_classes, (24, 40), mean=mean, std=std, bgr=bgr)
    frame = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)

    def run(image):
        with torch.inference_mode():
            return model(torch.from_numpy(image)).numpy()

    found = frame_ways._with_numpy(run, spec)(frame)
    expected = Predictor(model, spec, torch.device("cpu")).label_map(frame)
    assert len(np.unique(expected)) == 3
    assert (found == expected).mean() > 0.99
