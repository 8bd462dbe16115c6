"""Tests of what makes a user's network usable as it is."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import user_network
from PIL import Image
from torch import nn

import sfda_edge
from runtime.bundle.manifest import read_manifest
from sfda_edge.cli import main as cli
from sfda_edge.errors import CheckpointError, RecipeError
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.models import ModelSpec, make_usable, returns_probabilities

NAMES = ("road", "car", "sky")
SIZE = (16, 24)


@pytest.fixture
def images():
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def loaded(build, names=NAMES):
    torch.manual_seed(0)
    network = build(len(names)).eval()
    model = sfda_edge.load_model(network, class_names=names, size_hw=SIZE)
    return network, model.network


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (user_network.as_probabilities, lambda logits: logits.softmax(1)),
        (user_network.as_sigmoids, lambda z: z.sigmoid() / z.sigmoid().sum(1, keepdim=True)),
        (user_network.as_dict, lambda logits: logits.softmax(1)),
    ],
)
@torch.no_grad()
def test_probabilities_become_logits_of_the_same_probabilities(build, expected, images):
    network, usable = loaded(build)
    logits = network.inner(images)
    output = usable(images)
    output = output["out"] if isinstance(output, dict) else output
    assert torch.allclose(output.softmax(1), expected(logits), atol=1e-5)
    assert network.state_dict().keys() == usable.state_dict().keys()
    assert not network._forward_hooks  # the caller's network stays as it is


@pytest.mark.parametrize("build", [user_network.one_logit, user_network.one_probability])
@torch.no_grad()
def test_one_output_of_two_classes_is_the_second_ones(build, images):
    network, usable = loaded(build, ("background", "foreground"))
    probability = network.inner(images).sigmoid()
    expected = torch.cat([1 - probability, probability], 1)
    for model in (usable, copy.deepcopy(usable)):
        assert torch.allclose(model(images).softmax(1), expected, atol=1e-5)


def test_one_output_is_not_enough_for_three_classes():
    with pytest.raises(CheckpointError, match=r"returned \(1, 1, 16, 24\)"):
        sfda_edge.load_model(user_network.build(1), class_names=NAMES, size_hw=SIZE)


@torch.no_grad()
def test_certain_probabilities_stay_finite():
    class Certain(nn.Module):
        def forward(self, images):
            return (images[:, :1] > 0.5).float()

    model = Certain()
    make_usable(model, ModelSpec("python:Certain", label_space("binary"), SIZE))
    output = model(torch.rand(1, 3, *SIZE))
    assert output.shape == (1, 2, *SIZE)
    assert output.isfinite().all()


@pytest.mark.parametrize("name", ["one_logit", "one_probability"])
def test_one_output_goes_the_whole_way(name, labelled_folder, in_empty_folder):
    torch.manual_seed(0)
    torch.save(getattr(user_network, name)(2).state_dict(), "one.pth")
    model = ["--weights", "one.pth", "--model", f"user_network:{name}", "--binary"]
    images = ["--size", "40x24", "--images", str(labelled_folder / "images")]
    few = ["--set", "steps=2", "--set", "batch_size=2", "--out", "run"]
    assert cli.main(["adapt", *model, *images, *few]) == 0
    assert cli.main(["export", "run", "--trust-model-code"]) == 0  # the gate compares them
    names = read_manifest(in_empty_folder / "bundle").label_space.names
    assert names == ("background", "foreground")


@torch.no_grad()
def test_a_network_that_closes_over_itself_is_built_again_for_a_copy(images):
    spec = ModelSpec("user_network:Closed", label_space("binary"), SIZE)
    model = user_network.Closed(2).eval()
    make_usable(model, spec)
    model.side.weight.requires_grad_(False)
    copied = copy.deepcopy(copy.deepcopy(model))
    expected = model(images)
    model(1 - images)  # the copy must not read what this leaves
    assert torch.equal(copied(images), expected)
    copied.inner[0].weight.add_(1)
    assert torch.equal(model(images), expected)
    assert not copied.side.weight.requires_grad
    assert copied.inner[0].weight.requires_grad


@torch.no_grad()
def test_a_network_whose_copies_run_its_own_layers_is_built_again(images):
    """Outputs agree, as long as the weights do."""
    spec = ModelSpec("user_network:Bound", label_space("binary"), SIZE)
    model = user_network.Bound(2).eval()
    make_usable(model, spec)
    copied, expected = copy.deepcopy(model), model(images)
    copied.inner[0].weight.add_(1)
    assert torch.equal(model(images), expected)
    assert not torch.equal(copied(images), expected)


@torch.no_grad()
def test_a_network_whose_copies_return_nothing_is_built_again(images):
    """What a copy returns is no reason to reject the network."""
    spec = ModelSpec("user_network:Gathering", label_space("binary"), SIZE)
    model = user_network.Gathering(2).eval()
    make_usable(model, spec)
    assert torch.equal(copy.deepcopy(model)(images)["out"], model(images)["out"])


@pytest.mark.parametrize("build", [user_network.Closed, user_network.Bound, user_network.Gathering])
def test_one_that_was_given_in_python_is_rejected(build):
    with pytest.raises(CheckpointError, match=rf"copy of python:{build.__name__} .*--model pack"):
        loaded(build)


def test_one_that_is_built_only_once_is_rejected():
    spec = ModelSpec("user_network:always_the_same", label_space("binary"), SIZE)
    with pytest.raises(CheckpointError, match="a copy of user_network:always_the_same computes"):
        make_usable(user_network.always_the_same(2).eval(), spec)


def test_a_random_network_given_in_python_is_said_to_be_random():
    with pytest.raises(CheckpointError, match="is not deterministic: module 'always'"):
        loaded(user_network.Random)


@pytest.mark.parametrize("build", [user_network.as_probabilities, user_network.one_probability])
@torch.no_grad()
def test_damaged_statistics_do_not_hide_what_a_network_returns(build, images):
    """They are repaired later; until then all is NaN."""
    torch.manual_seed(0)
    count = 2 if build is user_network.one_probability else 3
    network = build(count).eval()
    network.inner[1].running_var.fill_(float("nan"))
    model = sfda_edge.load_model(network, class_names=NAMES[:count], size_hw=SIZE).network
    assert returns_probabilities(model)
    network.inner[1].running_var.fill_(1.0)
    model.inner[1].running_var.fill_(1.0)
    expected = network(images)
    expected = expected["out"] if isinstance(expected, dict) else expected
    assert torch.allclose(model(images).softmax(1)[:, -1], expected[:, -1], atol=1e-5)


def test_a_head_that_was_never_trained_says_nothing():
    network = user_network.build(1)
    torch.nn.init.zeros_(network[-1].weight)
    torch.nn.init.zeros_(network[-1].bias)
    model = sfda_edge.load_model(network, class_names=NAMES[:2], size_hw=SIZE).network
    assert not returns_probabilities(model)


def test_probabilities_are_not_rounded_to_half_precision(in_empty_folder):
    network = user_network.as_sigmoids(3).eval()
    model = sfda_edge.load_model(network, class_names=NAMES, size_hw=SIZE)
    with pytest.raises(RecipeError, match="returns probabilities, which bf16 rounds"):
        sfda_edge.adapt(model, "streetsynth:target", precision="bf16", out_dir="run")


def test_a_network_with_one_output_can_be_trained(labelled_folder, in_empty_folder):
    (in_empty_folder / "binary").mkdir()
    for path in (labelled_folder / "labels").iterdir():
        labels = np.array(Image.open(path))
        Image.fromarray((labels > 0).astype(np.uint8)).save(in_empty_folder / "binary" / path.name)
    recipe = 'model = "user_network:one_logit"\nlabel_space = "binary"\nsteps = 3\n'
    Path("train.toml").write_text(recipe + "input_hw = [24, 40]\nbatch_size = 2\n")
    arguments = ["train", "train.toml", "--set", "model=user_network:one_logit", "--out", "run"]
    images = ["--images", str(labelled_folder / "images"), "--labels", "binary"]
    assert cli.main([*arguments, *images]) == 0
    losses = [
        json.loads(line)["loss"] for line in Path("run/metrics.jsonl").read_text().splitlines()
    ]
    assert all(0 < loss < 5 for loss in losses)


def test_a_network_in_training_mode_stays_as_it_is():
    network = user_network.build(3).train()
    network[1].eval()
    before = copy.deepcopy(network.state_dict())
    sfda_edge.load_model(network, class_names=NAMES, size_hw=SIZE)
    assert [module.training for module in network.modules()] == [True, True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
