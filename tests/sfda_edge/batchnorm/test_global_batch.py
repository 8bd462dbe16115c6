"""Normalising by the batch's own statistics against PyTorch's train(); two processes elsewhere."""

import copy

import pytest
import torch
from torch import nn

from sfda_edge.batchnorm.global_batch import _global_forward, batch_mode, batch_moments
from sfda_edge.batchnorm.layers import batchnorm_layers


@pytest.mark.parametrize("parts", [[3], [1, 2]])
def test_moments_are_numpys(parts):
    features = torch.randn(3, 5, 4, 2) * 3 + 50
    mean, variance = batch_moments(*features.split(parts))
    torch.testing.assert_close(mean, torch.tensor(features.numpy().mean((0, 2, 3))))
    torch.testing.assert_close(
        variance, torch.tensor(features.numpy().var((0, 2, 3))), rtol=1e-4, atol=1e-4
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False)
    )
    for layer in batchnorm_layers(network).values():
        layer.running_mean.uniform_(-1, 1)
        layer.running_var.uniform_(0.5, 2)
    return network.eval()


def trained(network, images):
    """Outputs, gradients and statistics after one pass."""
    outputs = network(images)
    outputs.sigmoid().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    names = [n for n in network.state_dict() if "running" in n]
    return [outputs, *gradients, *(network.state_dict()[name] for name in names)]


@pytest.mark.parametrize("in_python", [False, True])
def test_it_is_what_train_does(model, in_python):
    """Also the form that a data-parallel run takes, which sums over the processes."""
    images = torch.randn(5, 3, 7, 6) * 4 + 1
    expected = trained(copy.deepcopy(model).train(), images)
    layers = batchnorm_layers(model)
    with batch_mode(layers, 0.1):
        if in_python:
            for layer in layers.values():
                layer.forward = _global_forward.__get__(layer)
        found = trained(model, images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_momentum_the_running_statistics_stay(model):
    before = copy.deepcopy(model.state_dict())
    images = torch.randn(5, 3, 7, 6)
    with batch_mode(batchnorm_layers(model), 0.0):
        inside = model(images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (inside - model(images)).abs().max() > 0.1


def test_without_momentum_an_infinite_batch_leaves_no_trace(model):
    before = copy.deepcopy(model.state_dict())
    images = torch.full((5, 3, 7, 6), float("inf"))
    with batch_mode(batchnorm_layers(model), 0.0):
        model(images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_afterwards_all_is_as_before_whatever_happens(model):
    layers = batchnorm_layers(model)
    layers["1"].momentum, layers["1"].num_batches_tracked = 0.3, torch.tensor(7)
    with pytest.raises(KeyError), batch_mode(layers, 0.1):
        raise KeyError
    assert not any(module.training for module in model.modules())
    assert (layers["1"].momentum, int(layers["1"].num_batches_tracked)) == (0.3, 7)
    assert "forward" not in layers["1"].__dict__


def test_dropout_stays_off():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9)).eval()
    with batch_mode(batchnorm_layers(network), 0.0):
        assert (network(torch.randn(2, 3, 8, 8)) != 0).all()
