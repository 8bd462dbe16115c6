"""Every loss against loops over the sums in its equation."""

import math

import pytest
import torch
from torch import nn

from sfda_edge.batchnorm.global_batch import batch_moments
from sfda_edge.batchnorm.layers import batchnorm_layers, observing_inputs
from sfda_edge.methods.sfda.attention import channel_map, dual_attention, spatial_map
from sfda_edge.methods.sfda.patches import (
    chosen,
    easy_and_hard,
    patch_entropy,
    split_patches,
    weighted_self_information,
)
from sfda_edge.training.losses import (
    attention_divergence,
    batchnorm_statistics_loss,
    conditional,
    entropy_map,
    image_wise_max_square,
    masked_cross_entropy,
    max_square,
    mean_absolute,
)


@pytest.fixture
def probabilities():
    torch.manual_seed(1)
    return (3 * torch.randn(2, 4, 6, 8)).softmax(1)


def test_max_square_is_e1(probabilities):
    n, c, h, w = probabilities.shape
    total = 0.0
    for image in probabilities:
        total += sum(
            float(image[k, y, x]) ** 2 for k in range(c) for y in range(h) for x in range(w)
        ) / (h * w)
    assert max_square(probabilities).item() == pytest.approx(-total / n, rel=1e-5)


def test_what_a_class_map_drops_is_no_certainty():
    """All in the dropped output is no answer at all; the entropy of what is left decides."""
    left = torch.tensor([0.25, 0.25]).view(1, 2, 1, 1)  # half of the network's answer was dropped
    assert entropy_map(conditional(left)).item() == pytest.approx(math.log(2), rel=1e-5)
    nothing = torch.tensor([1e-6, 1e-6]).view(1, 2, 1, 1).requires_grad_()
    entropy_map(conditional(nothing)).sum().backward()
    assert nothing.grad.abs().max() < 1e-3  # no pull towards the dropped output, or away from it
    whole = (3 * torch.randn(2, 4, 6, 8)).softmax(1)
    torch.testing.assert_close(conditional(whole), whole)


def test_image_wise_max_square_weighs_rare_classes_more(probabilities):
    ratio, expected = 0.2, 0.0
    n, c, h, w = probabilities.shape
    for image in probabilities:
        labels = image.argmax(0)
        weight = torch.zeros(h, w)
        for k in range(c):
            count = int((labels == k).sum())
            if count:
                weight[labels == k] = count**-ratio
        weight /= weight.mean()
        expected -= float((weight * image.square().sum(0)).sum()) / (h * w * n)
    assert image_wise_max_square(probabilities, ratio).item() == pytest.approx(expected, rel=1e-5)


def test_without_ratio_the_image_wise_loss_is_the_plain_one(probabilities):
    torch.testing.assert_close(image_wise_max_square(probabilities, 0.0), max_square(probabilities))


def test_entropy_of_uniform_answers_is_log_classes():
    uniform = torch.full((1, 5, 2, 2), 0.2)
    torch.testing.assert_close(entropy_map(uniform), torch.full((1, 2, 2), math.log(5)))


def test_the_entropy_of_a_pixel_that_is_beyond_doubt_has_a_slope():
    logits = torch.tensor([200.0, 0.0, -200.0]).view(1, 3, 1, 1).requires_grad_()
    entropy_map(logits.softmax(1)).sum().backward()
    assert logits.grad.abs().max() < 1e-6


def test_mean_absolute_is_a_loop(probabilities):
    other = probabilities.roll(1, 1)
    expected = sum(
        abs(float(a) - float(b))
        for a, b in zip(probabilities.flatten(), other.flatten(), strict=True)
    )
    found = mean_absolute(probabilities, other).item()
    assert found == pytest.approx(expected / probabilities.numel(), rel=1e-5)


def test_batchnorm_statistics_loss_is_e3():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    for layer in (model[1], model[3]):
        layer.running_mean.uniform_(-1, 1)
        layer.running_var.uniform_(0.5, 2)
    model.eval().requires_grad_(False)
    layers, moments = batchnorm_layers(model), {}
    images = torch.randn(2, 3, 6, 7)
    with observing_inputs(layers, lambda name, x: moments.update({name: batch_moments(x)})):
        model(images)
    expected, x = 0.0, images
    for index, layer in enumerate(model):
        if isinstance(layer, nn.BatchNorm2d):
            for channel in range(4):
                values = [float(v) for v in x[:, channel].flatten()]
                mean = sum(values) / len(values)
                variance = sum((v - mean) ** 2 for v in values) / len(values)
                expected += (mean - float(layer.running_mean[channel])) ** 2
                expected += (variance - float(layer.running_var[channel])) ** 2
        x = model[index](x)
    found = batchnorm_statistics_loss(moments, layers).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_watching_leaves_no_hook_behind():
    model = nn.Sequential(nn.BatchNorm2d(3)).eval()
    with observing_inputs(batchnorm_layers(model), lambda name, x: None):
        pass
    assert not model[0]._forward_pre_hooks


def naive_map(vectors, scaling):
    """Row j: softmax over i of the dot products of vectors i and j."""
    if scaling == "unit":
        vectors = [v / v.norm() for v in vectors]
    divisor = math.sqrt(len(vectors[0])) if scaling == "root" else 1
    rows = []
    for j in vectors:
        scores = [math.exp(float(i @ j) / divisor) for i in vectors]
        rows.append([score / sum(scores) for score in scores])
    return torch.tensor(rows)


@pytest.mark.parametrize("scaling", ["unit", "root", "raw"])
def test_both_attentions_are_e5_e6_e7(scaling):
    torch.manual_seed(2)
    features = torch.randn(1, 3, 2, 4)
    flat = features[0].flatten(1)  # (C, HW)
    spatial = naive_map(list(flat.T), scaling)
    channel = naive_map(list(flat), scaling)
    torch.testing.assert_close(spatial_map(features, scaling)[0], spatial, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(channel_map(features, scaling)[0], channel, rtol=1e-5, atol=1e-6)
    values = flat / flat.norm(dim=0, keepdim=True) if scaling == "unit" else flat
    expected = torch.zeros(6, 8)
    for j in range(8):
        for i in range(8):
            expected[:3, j] += spatial[j, i] * values[:, i]
    for j in range(3):
        for i in range(3):
            expected[3 + j] += channel[j, i] * values[i]
    torch.testing.assert_close(dual_attention(features, scaling)[0], expected, rtol=1e-5, atol=1e-6)


def test_attention_divergence_is_a_loop_and_zero_for_equals():
    torch.manual_seed(3)
    p, q = (torch.randn(2, 4, 4).softmax(-1) for _ in range(2))
    expected = 0.0
    for image in range(2):
        for row in range(4):
            for i in range(4):
                a, b = float(p[image, row, i]), float(q[image, row, i])
                expected += a * math.log(a / b) / 8
    assert attention_divergence(p, q).item() == pytest.approx(expected, rel=1e-4)
    assert attention_divergence(p, p).item() == pytest.approx(0.0, abs=1e-7)


def test_patches_are_cut_row_by_row_and_the_remainder_left_out():
    maps = torch.arange(7 * 9).view(1, 1, 7, 9)
    patches = split_patches(maps, 3)  # 2x3 pixels each; the last row is left over
    assert patches.shape == (1, 9, 1, 2, 3)
    for row in range(3):
        for column in range(3):
            expected = maps[0, 0, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
            assert torch.equal(patches[0, 3 * row + column, 0], expected)


def test_patch_entropy_is_e12(probabilities):
    found = patch_entropy(probabilities, 2)
    for n in range(2):
        for k, (y, x) in enumerate([(0, 0), (0, 4), (3, 0), (3, 4)]):
            total = 0.0
            for h in range(y, y + 3):
                for w in range(x, x + 4):
                    total -= sum(float(p) * math.log(float(p)) for p in probabilities[n, :, h, w])
            assert found[n, k].item() == pytest.approx(total / 12, rel=1e-5)


def test_each_position_splits_its_own_half_easy_and_hard():
    entropies = torch.tensor([[0.1, 0.9], [0.4, 0.2], [0.3, 0.1], [0.2, 0.8]])
    easy, hard = easy_and_hard(entropies)
    assert easy.tolist() == [[0, 2], [3, 1]]
    assert hard.tolist() == [[2, 3], [1, 0]]
    patches = torch.arange(8).view(4, 2, 1, 1, 1)
    found, positions = chosen(patches, hard)
    assert found.flatten().tolist() == [4, 7, 2, 1]
    assert positions.tolist() == [0, 1, 0, 1]


def test_of_an_odd_batch_the_middle_is_left_out():
    easy, hard = easy_and_hard(torch.tensor([[0.3], [0.1], [0.2]]))
    assert easy.tolist() == [[1]]
    assert hard.tolist() == [[0]]


def test_self_information_sums_to_one_where_all_classes_are_equal():
    maps = weighted_self_information(torch.full((1, 4, 2, 2), 0.25))
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 2, 2))


def test_cross_entropy_counts_weighted_pixels_alone(probabilities):
    labels = torch.randint(0, 4, (2, 6, 8))
    weights = (torch.rand(2, 6, 8) > 0.6).float() * torch.rand(2, 6, 8)
    total = weight = 0.0
    for n in range(2):
        for y in range(6):
            for x in range(8):
                share = float(weights[n, y, x])
                total -= share * math.log(float(probabilities[n, labels[n, y, x], y, x]))
                weight += share
    found = masked_cross_entropy(probabilities, labels, weights).item()
    assert found == pytest.approx(total / weight, rel=1e-5)


def test_nothing_to_learn_is_a_loss_of_zero(probabilities):
    labels = torch.zeros(2, 6, 8, dtype=torch.int64)
    assert masked_cross_entropy(probabilities, labels, torch.zeros(2, 6, 8)).item() == 0.0
