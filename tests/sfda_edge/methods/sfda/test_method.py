"""What SFDA's three networks descend on, put together by hand from E10, E14 and E15."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sfda_edge.adaptation.begin import begin
from sfda_edge.errors import RecipeError
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.methods.sfda.features import feature_layer

WEIGHTS = {
    "target_weight": 0.7,
    "output_weight": 1.3,
    "attention_weight": 0.6,
    "target_attention_weight": 0.4,
    "statistics_weight": 0.9,
    "adversarial_weight": 0.2,
}
SMALL = {"fake_hw": "[16, 32]", "noise_size": "8", "batch_size": "4", "patches_per_side": "2"}


@pytest.fixture
def start(make_task):
    """The method on the tiny network, with a student that has left its source."""

    def begun(**changes):
        settings = {**WEIGHTS, **SMALL, "steps": "4", **changes}
        overrides = tuple(f"{key}={value}" for key, value in settings.items())
        method_type, recipe = METHODS["sfda"][1], load_method_recipe("sfda", None, overrides)[1]
        method = begin(make_task(), method_type, recipe).method
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in method.model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return method

    return begun


def as_it_trains(method):
    """The student in PyTorch's own mode for training, where the recipe says so."""
    return copy.deepcopy(method.model).train(method.recipe.batch_statistics)


def seen(method, network, inputs):
    """Logits and features as arrays, and the input of the one BatchNorm layer."""
    kept = {}
    layer = feature_layer(method.model, method.task.spec)
    hooks = [
        network.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output: kept.update(features=output)
        ),
        next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).register_forward_hook(
            lambda _m, i, _o: kept.update(normed=i[0])
        ),
    ]
    with torch.no_grad():
        logits = network(inputs)
    for hook in hooks:
        hook.remove()
    arrays = (logits, kept["features"], kept["normed"])
    return [array.double().numpy() for array in arrays]


def softmax(values, axis):
    raised = np.exp(values - values.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


def attention(features):
    """Per image the spatial map (N1, N1), the channel map (C1, C1), and E7's two products.

    Features are of unit length at every position, in the channel map along every channel.
    """
    found = []
    for image in features:
        flat = image.reshape(len(image), -1)
        positions = flat / np.linalg.norm(flat, axis=0, keepdims=True).clip(1e-12)
        channels = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)
        spatial = softmax(positions.T @ positions, 1)
        channel = softmax(channels @ channels.T, 1)
        dual = np.concatenate([positions @ spatial.T, channel @ positions])
        found.append((spatial, channel, dual))
    return [np.stack(parts) for parts in zip(*found, strict=True)]


def divergence(first, second):
    return (first * np.log(first / second)).sum(-1).mean()


def fakes_of(method, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        images = method.generator(torch.randn(method.batch_size, method.recipe.noise_size))
    return method.task.inputs(images)


@pytest.mark.parametrize("batch_statistics", ["true", "false"])
@pytest.mark.parametrize("bounded", ["true", "false"])
def test_the_generator_descends_on_e10(start, bounded, batch_statistics):
    method = start(bounded_generator=bounded, batch_statistics=batch_statistics)
    target = method.task.target.images([0, 1, 2, 3])
    fakes = fakes_of(method, 7)
    logits, features, normed = seen(method, method.source, fakes)
    own_logits, own_features, _ = seen(method, as_it_trains(method), fakes)
    norm = next(m for m in method.source.modules() if isinstance(m, nn.BatchNorm2d))
    statistics = ((normed.mean((0, 2, 3)) - norm.running_mean.numpy()) ** 2).sum()
    statistics += ((normed.var((0, 2, 3)) - norm.running_var.numpy()) ** 2).sum()
    apart = np.abs(logits - own_logits).mean()
    spatial, channel, dual = attention(features)
    attention_apart = np.abs(dual - attention(own_features)[2]).mean()
    small = nn.functional.interpolate(target.float(), (16, 32), mode="bilinear", antialias=True)
    target_features = seen(method, as_it_trains(method), method.task.inputs(small))[1]
    target_spatial, target_channel, _ = attention(target_features)
    likeness = divergence(spatial, target_spatial) + divergence(channel, target_channel)
    bound = np.log1p if bounded == "true" else float
    expected = 0.9 * statistics - 1.3 * bound(apart) - 0.6 * bound(attention_apart) + 0.4 * likeness
    student = {k: v.clone() for k, v in method.model.state_dict().items()}
    torch.manual_seed(7)
    logged = method._train_generator(target, 0)
    assert logged["statistics"] == pytest.approx(statistics, rel=1e-3)
    assert logged["generator"] == pytest.approx(expected, rel=1e-3)
    for key, value in method.model.state_dict().items():
        assert torch.equal(value, student[key])


def easy_and_hard_patches(method, probabilities):
    """Per position, of the four images the two of low and the two of high entropy (E13)."""
    halved = method.task.half_size(probabilities)
    information = -halved * halved.log()
    height, width = (side // 2 for side in halved.shape[2:])
    groups = {"easy": [], "hard": []}
    for position in range(4):
        top, left = position // 2 * height, position % 2 * width
        part = information[:, :, top : top + height, left : left + width]
        order = part.sum(1).mean((1, 2)).argsort().tolist()
        for name, images in (("easy", order[:2]), ("hard", order[2:])):
            groups[name] += [(part[i] / np.log(halved.shape[1]), position) for i in images]
    return groups


def outputs(method, patches):
    maps, positions = (
        torch.stack([m for m, _ in patches]),
        torch.tensor([p for _, p in patches]),
    )
    with torch.no_grad():
        return method.patches.discriminator(maps, positions).double().numpy()


def minus_log(probability_of, real):
    """−log σ(x) where it should be real, −log(1 − σ(x)) where it should not."""
    return -np.log(1 / (1 + np.exp(-probability_of if real else probability_of))).mean()


@pytest.mark.parametrize("batch_statistics", ["true", "false"])
def test_the_student_descends_on_e15_and_the_discriminator_on_e14(start, batch_statistics):
    method = start(batch_statistics=batch_statistics)
    target = method.task.target.images([0, 1, 2, 3])
    with torch.no_grad():
        method.patches.discriminator.answer.weight.mul_(
            300
        )  # fresh, it answers near 0 to easy and hard
        logits = method.task.logits(as_it_trains(method), method.task.inputs(target))
    probabilities = method.task.probabilities(logits)
    fakes = fakes_of(method, 9)
    source_logits, source_features, _ = seen(method, method.source, fakes)
    own_logits, own_features, _ = seen(method, as_it_trains(method), fakes)
    groups = easy_and_hard_patches(method, probabilities)
    on_hard, on_easy = outputs(method, groups["hard"]), outputs(method, groups["easy"])
    dual, own_dual = attention(source_features)[2], attention(own_features)[2]
    expected = {
        "target": -0.7 * float((probabilities**2).sum(1).mean()),
        "output": 1.3 * np.abs(source_logits - own_logits).mean(),
        "attention": 0.6 * np.abs(dual - own_dual).mean(),
        "adversarial": 0.2 * minus_log(on_hard, real=True),
    }
    generator = {k: v.clone() for k, v in method.generator.state_dict().items()}
    opponent = {k: v.clone() for k, v in method.patches.discriminator.state_dict().items()}
    torch.manual_seed(9)
    found, logged = method._train_student(target, 1)
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, rel=1e-3), name
    assert logged["loss"] == pytest.approx(sum(expected.values()), rel=1e-3)
    torch.testing.assert_close(found, probabilities)
    for key, value in method.patches.discriminator.state_dict().items():
        assert torch.equal(value, opponent[key])
    loss = method.patches.train(found, 1)
    wanted = (minus_log(on_easy, real=True) + minus_log(on_hard, real=False)) / 2
    assert loss == pytest.approx(wanted, rel=1e-3)
    for key, value in generator.items():
        if "running" not in key and "num_batches" not in key:
            assert torch.equal(method.generator.state_dict()[key], value), key


def test_the_discriminator_is_told_the_position(start):
    method = start()
    patch = torch.rand(1, 3, 8, 16)
    first, second = (outputs(method, [(patch[0], position)]) for position in (0, 3))
    assert first != second


def test_the_generator_has_its_turn_every_so_often(start):
    method = start(student_steps="2")
    images = method.task.target.images([0, 1, 2, 3])
    turns = ["generator" in method.step(images, [0, 1, 2, 3], step) for step in range(4)]
    assert turns == [True, False, True, False]


def test_one_image_has_no_statistics_of_its_own():
    changes = ("batch_size=1", "adversarial_weight=0")
    with pytest.raises(RecipeError, match="statistics of its own from two images on"):
        load_method_recipe("sfda", None, changes)
    load_method_recipe("sfda", None, (*changes, "batch_statistics=false"))
