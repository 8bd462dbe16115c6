import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional
from user_network import coarse

from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.data.labelled_images import LabelledImages
from sfda_edge.errors import RecipeError, RunError
from sfda_edge.recipes.recipe import parse_recipe
from sfda_edge.training.supervised import (
    Trainer,
    TrainRecipe,
    checkpoint_path,
    learning_rate_factor,
    train,
)

CPU = torch.device("cpu")
SETTINGS = {
    "model": "user_network:build",
    "label_space": "camvid",
    "input_hw": [24, 40],
    "steps": 30,
    "batch_size": 4,
    "warmup_steps": 2,
    "learning_rate": 0.05,
    "checkpoint_every": 10,
}


def recipe(**changes) -> TrainRecipe:
    return parse_recipe({**SETTINGS, **changes}, TrainRecipe)


@pytest.fixture
def data():
    """Images whose grey level gives the label away."""
    labels = torch.randint(0, 3, (8, 3, 5), generator=torch.Generator().manual_seed(0))
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)
    return (labels * 80 + 20)[:, None].repeat(1, 3, 1, 1), labels


def training_images(data, spec, **options):
    """The images (N, 3, H, W) and labels (N, H, W), as a labelled set is read."""
    samples = [
        Sample(
            f"{index}",
            partial(np.ascontiguousarray, image.permute(1, 2, 0).numpy()),
            partial(np.asarray, label_map.numpy()),
        )
        for index, (image, label_map) in enumerate(zip(*data, strict=True))
    ]
    images = ImageSet("grey", tuple(samples))
    return LabelledImages(images, spec.label_space, tuple(data[0].shape[2:]), **options)


def test_training_learns(tmp_path, tiny_model, tiny_spec, data):
    trainer = Trainer(tiny_model, tiny_spec, recipe(), CPU)
    train(trainer, training_images(data, tiny_spec), tmp_path)
    tiny_model.eval()
    with torch.inference_mode():
        predicted = tiny_model(trainer.normalise(data[0])).argmax(1)
    assert (predicted == data[1]).float().mean() > 0.8
    assert {p.name for p in tmp_path.iterdir()} >= {"model.safetensors", "model.json"}


def test_a_network_that_answers_on_a_coarser_grid_learns(tmp_path, tiny_spec, data):
    torch.manual_seed(0)
    trainer = Trainer(coarse(3), tiny_spec, recipe(), CPU)
    images = training_images(data, tiny_spec)
    losses = [trainer.step(images) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_resumed_run_is_the_same_run(tmp_path, tiny_model, tiny_spec, data):
    def trainer():
        return Trainer(copy.deepcopy(tiny_model), tiny_spec, recipe(), CPU)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    images = training_images(data, tiny_spec)
    whole = trainer()
    train(whole, images, tmp_path / "a")
    first = trainer()
    for _ in range(17):
        first.step(images)
        if first.next_step == 10:
            first.save(checkpoint_path(tmp_path / "b"))
    second = trainer()
    second.resume(checkpoint_path(tmp_path / "b"))
    train(second, images, tmp_path / "b")
    expected, found = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_the_seed_chooses_a_step_s_images_and_then_augments_them(tiny_model, tiny_spec, data):
    """In this order from one generator: runs that were recorded stay what they are."""
    images = training_images(data, tiny_spec)
    settings = recipe(seed=3, steps=2)
    trainer = Trainer(copy.deepcopy(tiny_model), tiny_spec, settings, CPU)
    losses = [trainer.step(images) for _ in range(2)]
    other = Trainer(copy.deepcopy(tiny_model), tiny_spec, settings, CPU)
    for step, found in enumerate(losses):
        torch.manual_seed(3 * 1_000_003 + step)
        chosen = torch.randint(len(data[0]), (settings.batch_size,))
        pictures, targets = other._batch(data[0][chosen], data[1][chosen])
        expected = functional.cross_entropy(other.model(pictures), targets, ignore_index=255)
        assert found == pytest.approx(expected.item(), rel=1e-5)
        other.step(images)


def test_ignored_pixels_and_the_outside_of_crops_do_not_count(tiny_model, tiny_spec, data):
    trainer = Trainer(tiny_model, tiny_spec, recipe(), CPU)
    labels = torch.full_like(data[1], 255)
    labels[:, :, :20] = data[1][:, :, :20]
    _, targets = trainer._batch(data[0], labels)
    assert set(targets.unique().tolist()) <= {0, 1, 2, 255}
    assert (targets == 255).any()


def test_images_and_labels_are_cropped_alike(tiny_model, tiny_spec, data):
    """Without colour changes, grey still tells the label after flips and crops."""
    trainer = Trainer(tiny_model, tiny_spec, recipe(colour_jitter=0.0, blur_share=0.0), CPU)
    torch.manual_seed(0)
    pictures, targets = trainer._batch(*data)
    grey = (pictures[:, 0] - trainer.normalise.offset[0, 0]) / trainer.normalise.scale[0, 0]
    inside = targets != 255
    expected = targets * 80.0 + 20
    assert (functional.l1_loss(grey, expected, reduction="none")[inside] < 1).float().mean() > 0.8


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_learning_rate_rises_then_falls_to_zero(schedule):
    settings = recipe(schedule=schedule, warmup_steps=5, steps=50)
    factors = [learning_rate_factor(step, settings) for step in range(51)]
    assert factors[0] == pytest.approx(0.2)
    assert factors[5] == pytest.approx(1.0)
    assert factors[50] == pytest.approx(0.0, abs=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(factors[5:]))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, tiny_model, tiny_spec, data):
    with torch.no_grad():
        tiny_model[3].bias.fill_(math.nan)
    images = training_images(data, tiny_spec)
    with pytest.raises(RunError, match="the loss is nan at step 0"):
        train(Trainer(tiny_model, tiny_spec, recipe(), CPU), images, tmp_path)


def test_a_batch_without_labels_teaches_nothing(tmp_path, tiny_model, tiny_spec, data):
    """Only one image of eight has labels, and batches are of two."""
    pictures, labels = data[0], torch.full_like(data[1], 255)
    labels[0] = data[1][0]
    trainer = Trainer(tiny_model, tiny_spec, recipe(steps=12, batch_size=2, weight_decay=0.0), CPU)
    images, learned = training_images((pictures, labels), tiny_spec), []
    for _ in range(12):
        before = copy.deepcopy(tiny_model.state_dict())
        loss = trainer.step(images)
        after = tiny_model.state_dict()
        same = all(torch.equal(after[name], value) for name, value in before.items())
        assert same == (loss is None)
        learned.append(loss is not None)
    assert set(learned) == {True, False}
    assert trainer.next_step == 12


def test_half_precision_asks_for_a_gpu(tiny_model, tiny_spec):
    with pytest.raises(RecipeError, match="needs a CUDA GPU"):
        Trainer(tiny_model, tiny_spec, recipe(precision="bf16"), CPU)


IMPOSSIBLE = [{"steps": 0}, {"min_scale": 0.0}, {"schedule": "step"}, {"learning_rate": -1.0}]


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_impossible_settings_are_errors(change):
    with pytest.raises(RecipeError):
        recipe(**change)
