import math

import numpy as np
import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.graph.deploy import DeployModel, Outputs
from export.graph.health import LOW_CONFIDENCE, HealthVector
from sfda_edge.labels.class_map import load_class_map
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models import ModelSpec, build_model
from sfda_edge.models.inference import Normalise, class_matrix, mapped_probabilities

SPACE = LABEL_SPACES["cityscapes20"]
MAPPED = ModelSpec(
    "lite0_fpn_tiny", SPACE, (32, 48), class_map=load_class_map("cityscapes-camvid", SPACE)
)
PLAIN = ModelSpec("lite0_fpn_tiny", LABEL_SPACES["camvid"], (32, 48))


def network(spec):
    torch.manual_seed(0)
    model = build_model(spec).eval()
    with torch.no_grad():  # fresh weights answer with one class; these tell places apart
        logits = model(Normalise(spec)(torch.from_numpy(image())[None].permute(0, 3, 1, 2)))
        spread = logits.std((0, 2, 3))
        model.decoder.head.weight.mul_(3 / spread[:, None, None, None])
        model.decoder.head.bias.sub_(logits.mean((0, 2, 3))).mul_(3 / spread)
    return model


def image():
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)


def outputs(spec, *flags):
    model = network(spec)
    deploy = DeployModel(model, spec, Outputs(*flags)).eval()
    with torch.inference_mode():
        found = deploy(torch.from_numpy(image())[None])
    named = zip(deploy.outputs.names, found, strict=True)
    return model, deploy, {name: answer[0].numpy() for name, answer in named}


@pytest.mark.parametrize("spec", [PLAIN, MAPPED], ids=["plain", "mapped"])
def test_label_and_confidence_are_those_of_the_class_probabilities(spec):
    model, _, found = outputs(spec, "full", True)
    inputs = Normalise(spec)(torch.from_numpy(image())[None].permute(0, 3, 1, 2))
    with torch.no_grad():
        probabilities = mapped_probabilities(model(inputs), class_matrix(spec))[0].numpy()
    np.testing.assert_array_equal(found["label_map"], probabilities.argmax(0))
    np.testing.assert_allclose(found["confidence"], 255 * probabilities.max(0), atol=0.51)
    assert len(np.unique(found["label_map"])) > 2


@pytest.mark.parametrize("spec", [PLAIN, MAPPED], ids=["plain", "mapped"])
def test_coarse_labels_are_those_of_the_networks_grid(spec):
    _, deploy, found = outputs(spec, "coarse", True)
    _, _, full = outputs(spec, "full", True)
    inputs = deploy.normalise(torch.from_numpy(image())[None].permute(0, 3, 1, 2))
    with torch.no_grad():
        coarse = deploy._scores(deploy.network.coarse(inputs))[0].argmax(0).numpy()
    np.testing.assert_array_equal(found["label_map"], coarse.repeat(4, 0).repeat(4, 1))
    assert found["confidence"].shape == full["confidence"].shape
    assert 0.3 < (found["label_map"] == full["label_map"]).mean() < 1


def test_coarse_labels_need_a_network_that_enlarges():
    class Full(nn.Module):
        def forward(self, x):
            return x[:, :2]

    spec = ModelSpec("mine:net", LABEL_SPACES["camvid"], (8, 8))
    with pytest.raises(ExportError, match="has no coarse grid"):
        DeployModel(Full(), spec, Outputs("coarse"))


def test_large_logits_do_not_overflow_the_class_map():
    space = LABEL_SPACES["cityscapes"]
    class_map = load_class_map("cityscapes-camvid", space)
    spec = ModelSpec("x", space, (1, 1), class_map=class_map)
    logits = torch.zeros(1, 19, 1, 1)
    logits[0, 13] = 500.0
    scores = DeployModel(nn.Identity(), spec)._scores(logits)
    assert torch.isfinite(scores).all()
    assert scores.argmax(1).item() == LABEL_SPACES["camvid"].names.index("car")


def parts(deploy, vector):
    ends = np.cumsum(list(deploy.health.layout.values()))
    return dict(zip(deploy.health.layout, np.split(vector, ends[:-1]), strict=True))


def test_health_is_what_a_naive_loop_counts():
    _, deploy, found = outputs(PLAIN, "full", False, True)
    inputs = deploy.normalise(torch.from_numpy(image())[None].permute(0, 3, 1, 2))
    with torch.no_grad():
        grid = deploy.network.coarse(inputs)[0].softmax(0).numpy()
    entropies, low, histogram = [], 0, np.zeros(11)
    for row in range(grid.shape[1]):
        for column in range(grid.shape[2]):
            p = [float(value) for value in grid[:, row, column]]
            entropies.append(-sum(v * math.log(v) for v in p if v > 0) / math.log(11))
            low += max(p) < LOW_CONFIDENCE
            histogram[p.index(max(p))] += 1
    health = parts(deploy, found["health"])
    np.testing.assert_allclose(health["mean_entropy"], np.mean(entropies), rtol=1e-4)
    np.testing.assert_allclose(health["low_confidence_share"], low / len(entropies), atol=1e-6)
    np.testing.assert_allclose(health["class_histogram"], histogram / len(entropies), atol=1e-6)


def test_channel_means_are_those_of_four_batchnorm_layers_from_first_to_last():
    model, deploy, found = outputs(PLAIN, "full", False, True)
    layers = [name.split()[1] for name in deploy.health.layout if name.startswith("channel_means")]
    seen = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: out.mean((0, 2, 3)).numpy()})
        )
    ran = []
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, norm in norms.items():
        norm.register_forward_hook(lambda _m, _i, _o, name=name: ran.append(name))
    with torch.no_grad():
        model(deploy.normalise(torch.from_numpy(image())[None].permute(0, 3, 1, 2)))
    assert len(layers) == 4
    assert (layers[0], layers[-1]) == (ran[0], ran[-1])
    health = parts(deploy, found["health"])
    for name in layers:
        np.testing.assert_allclose(health[f"channel_means {name}"], seen[name], atol=1e-4)


def test_a_layer_that_runs_twice_is_counted_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 11, 1)

        def forward(self, x):
            return self.head(self.norm(self.norm(x)))

    spec = ModelSpec("mine:net", LABEL_SPACES["camvid"], (8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    model = Twice().eval()
    model.norm.running_mean.fill_(2.0)  # black becomes -2, and -4 the second time
    deploy = DeployModel(model, spec, Outputs("full", False, True)).eval()
    _, health = deploy(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    assert health.shape == (1, sum(deploy.health.layout.values()))
    torch.testing.assert_close(health[0, -3:], torch.full((3,), -2.0), rtol=0, atol=1e-4)


def test_a_network_without_batchnorm_has_no_channel_means():
    spec = ModelSpec("mine:net", LABEL_SPACES["camvid"], (8, 8))
    x = torch.zeros(1, 3, 8, 8)
    health = HealthVector(nn.Conv2d(3, 11, 1), spec, x)
    assert list(health.layout) == ["mean_entropy", "low_confidence_share", "class_histogram"]
