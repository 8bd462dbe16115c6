import copy

import numpy as np
import pytest
import torch
from torch import nn
from user_network import without_norm

from sfda_edge.errors import RecipeError
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics, ChannelMoments


def adapted(model, batches, share):
    recipe = BatchNormRecipe(share, num_images=6, batch_size=3)
    method = BatchNormStatistics(model, recipe)
    for batch in batches:
        method.step(batch)
    method.finish()
    return method


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 3, 8, 10, generator=generator) * 2 + 1 for _ in range(2)]


def test_moments_are_numpys():
    features = [torch.randn(2, 5, 3, 4) * 7 + 100 for _ in range(3)]
    moments = ChannelMoments(5, torch.device("cpu"))
    for part in features:
        moments.update(part)
    everything = torch.cat(features).double().numpy()
    mean, variance = moments.mean_and_variance()
    np.testing.assert_allclose(mean, everything.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(variance, everything.var((0, 2, 3)), rtol=1e-6)


def test_the_first_layers_statistics_are_mixed_in_closed_form(tiny_model, batches):
    source_mean = tiny_model[1].running_mean.clone()
    source_variance = tiny_model[1].running_var.clone()
    with torch.no_grad():
        inputs = tiny_model[0](torch.cat(batches)).double()
    adapted(tiny_model, batches, share=0.3)
    expected = 0.7 * source_mean + 0.3 * inputs.mean((0, 2, 3))
    torch.testing.assert_close(tiny_model[1].running_mean, expected.float(), rtol=1e-5, atol=1e-6)
    variance = 0.7 * source_variance + 0.3 * inputs.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(tiny_model[1].running_var, variance.float(), rtol=1e-5, atol=1e-6)


def test_later_layers_see_batch_normalised_inputs(batches):
    """Against PyTorch's own train mode, whose momentum None averages over equal batches."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    model = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(4)).eval()
    reference = copy.deepcopy(model)
    adapted(model, batches, share=1.0)
    last = reference[4]
    last.momentum = None
    last.reset_running_stats()
    with torch.no_grad():
        for batch in batches:
            reference.train()(batch)
    torch.testing.assert_close(model[4].running_mean, last.running_mean, rtol=1e-4, atol=1e-5)


def test_share_zero_leaves_the_source(tiny_model, batches):
    before = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    adapted(tiny_model, batches, share=0.0)
    for key, value in tiny_model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_nothing_but_the_statistics_changes(tiny_model, batches):
    before = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    adapted(tiny_model, batches, share=0.5)
    changed = {k for k, v in tiny_model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"1.running_mean", "1.running_var"}
    assert not tiny_model.training
    assert tiny_model[1].momentum == 0.1


def test_the_shift_is_measured_in_source_deviations(tiny_model):
    tiny_model[1].running_mean.zero_()
    tiny_model[1].running_var.fill_(4.0)
    with torch.no_grad():
        tiny_model[0].weight.zero_()
    method = BatchNormStatistics(tiny_model, BatchNormRecipe())
    assert method.step(torch.randn(2, 3, 4, 4))["shift"] == pytest.approx(0.0)
    tiny_model[1].running_mean.fill_(6.0)
    assert method.step(torch.randn(2, 3, 4, 4))["shift"] == pytest.approx(3.0, rel=1e-4)


def test_a_network_without_batchnorm_is_an_error():
    with pytest.raises(RecipeError, match="needs BatchNorm layers"):
        BatchNormStatistics(without_norm(3), BatchNormRecipe())


def test_sums_are_kept_where_the_model_is(tiny_model):
    """A device without numbers stands for a GPU."""
    method = BatchNormStatistics(tiny_model.to("meta"), BatchNormRecipe())
    assert {moments.total.device.type for moments in method.moments.values()} == {"meta"}
