"""Pseudo-labels on disk, augmentation and mixing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfda_edge.errors import RecipeError, RunError
from sfda_edge.methods.multiview import class_weights, rarity_weights
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.training.augmentation import LabelledBatch, StrongAugmentation, class_mix
from sfda_edge.training.losses import soft_cross_entropy
from sfda_edge.training.pseudo_labels import (
    PseudoLabels,
    label_target,
    sharpened,
    write_pseudo_labels,
)

CPU = torch.device("cpu")

RARE_SHARE = SelectionConfig().rare_class_share


@pytest.fixture
def stored(tmp_path):
    """Probabilities of seven images, and their pseudo-labels read back."""
    torch.manual_seed(0)
    probabilities = (2 * torch.randn(7, 3, 4, 6)).softmax(1)
    paths = [tmp_path / "work" / f"labels-{part}of3.npy" for part in range(3)]
    for part, path in enumerate(paths):
        write_pseudo_labels(path, range(part, 7, 3), lambda images: probabilities[list(images)])
    return probabilities, PseudoLabels(paths)


def test_probabilities_come_back_within_half_a_step(stored):
    probabilities, labels = stored
    found = labels.read([6, 0, 3], (4, 6), CPU)
    torch.testing.assert_close(found, probabilities[[6, 0, 3]], rtol=0, atol=0.5 / 255 + 1e-6)


def test_thresholds_leave_each_class_its_portion(stored):
    _, labels = stored
    best = labels.read(range(7), (4, 6), CPU).max(1)
    for portion in (0.2, 0.5, 1.0):
        thresholds = labels.thresholds(portion)
        for k in range(3):
            of_class = best.values[best.indices == k]
            kept = (of_class >= thresholds[k] - 1e-6).float().mean().item()
            next_level = (of_class >= thresholds[k] + 1 / 255 - 1e-6).float().mean().item()
            assert kept >= portion > next_level or next_level == kept == 1.0


def test_class_shares_count_the_most_likely_class(stored):
    _, labels = stored
    best = labels.read(range(7), (4, 6), CPU).argmax(1)
    expected = torch.bincount(best.flatten(), minlength=3) / best.numel()
    torch.testing.assert_close(labels.class_shares, expected)


def test_labels_of_an_earlier_part_of_the_run_are_kept_when_asked(make_task):
    task, calls = make_task(), []

    def label(images):
        calls.append(len(images))
        return torch.full((len(images), 3, 4, 8), 1 / 3)

    first = label_target(task, "labels", label)
    assert sum(calls) == len(task.target)
    assert first.read([9], (4, 8), CPU).shape == (1, 3, 4, 8)
    label_target(task, "labels", label, keep=True)
    assert sum(calls) == len(task.target)
    label_target(task, "labels", label)
    assert sum(calls) == 2 * len(task.target)


def test_a_labelling_that_fails_leaves_no_half_file(tmp_path):
    def fails(indices):
        if indices[0]:
            raise OSError(28, "No space left on device")
        return torch.rand(len(indices), 2, 3, 3)

    with pytest.raises(RunError, match="No space left"):
        write_pseudo_labels(tmp_path / "labels.npy", range(9), fails)
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_memory_is_not_called_a_full_disk(tmp_path):
    def fails(_indices):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        write_pseudo_labels(tmp_path / "labels.npy", range(9), fails)
    assert list(tmp_path.iterdir()) == []


def test_sharpened_probabilities_are_a_softmax_of_scaled_logits():
    logits = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(sharpened(logits.softmax(1), 3.0), (3 * logits).softmax(1))
    assert sharpened(torch.zeros(1, 4, 2, 2), 2.0).sum() == 0


def test_a_large_power_leaves_the_most_likely_class_even_where_none_is_likely():
    unsure = torch.tensor([0.4, 0.35, 0.25]).view(1, 3, 1, 1)
    found = sharpened(unsure, 200.0).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0]))


def test_soft_cross_entropy_is_a_loop():
    torch.manual_seed(1)
    p, q = (torch.randn(2, 3, 4, 5).softmax(1) for _ in range(2))
    q[0, :, :2] = 0
    weights = torch.tensor([0.5, 1.0, 2.0])
    total = count = 0.0
    for n in range(2):
        for y in range(4):
            for x in range(5):
                if q[n, :, y, x].sum() > 0:
                    count += 1
                    for k in range(3):
                        total -= float(weights[k] * q[n, k, y, x] * p[n, k, y, x].log())
    assert soft_cross_entropy(p, q, weights).item() == pytest.approx(total / count, rel=1e-5)


def test_rarity_is_a_power_of_the_share():
    found = rarity_weights(torch.tensor([0.81, 0.09, 0.1, 0.0]), 0.5, RARE_SHARE)
    assert (found[1] / found[0]).item() == pytest.approx(3.0)
    assert found[3].item() == 1
    torch.testing.assert_close(rarity_weights(found, 0.0, RARE_SHARE), torch.ones(4))


def test_a_class_in_a_handful_of_pixels_is_not_favoured_without_bound():
    def against_road(share):
        found = rarity_weights(torch.tensor([1 - share, share]), 0.4, RARE_SHARE)
        return (found[1] / found[0]).item()

    assert against_road(RARE_SHARE) == pytest.approx(RARE_SHARE**-0.4, rel=1e-2)
    found = [against_road(share) for share in (0.0, 1e-7, 1e-5, 2e-4, RARE_SHARE)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(1, abs=0.01)
    assert against_road(2 * RARE_SHARE) < found[-1]


@pytest.mark.parametrize("sharpness", [1.0, 2.0, 200.0])
def test_class_weights_are_bounded_by_rarity_and_by_agreement_and_keep_the_mean(sharpness):
    shares = torch.tensor([0.9, 0.06, 0.04, 0.0])
    rarity = torch.tensor([1.0, 3.0, 4.0, 1.0])
    weights = class_weights(shares, rarity, torch.tensor([1.0, 0.9, 0.1, 1.0]), sharpness)
    assert (weights * shares).sum().item() == pytest.approx(1.0)
    expected = torch.tensor([1.0, min(3.0, 0.9 ** (-2 * sharpness)), 4.0, 1.0])
    torch.testing.assert_close(weights / weights[0], expected)


@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_weighed_labels_predict_a_class_where_its_iou_gains(sharpness):
    """Against every threshold; the truth is drawn from the probabilities."""
    torch.manual_seed(0)
    p = torch.rand(4000).pow(3)
    predicted = p[None] > torch.linspace(0.01, 0.99, 99)[:, None]

    def iou(predicted):
        both = (predicted * p).sum(-1)
        return both / (predicted.sum(-1) + p.sum() - both)

    best = iou(predicted).max()
    agreement, shares = torch.stack([torch.ones(()), best.sqrt()]), torch.tensor([0.8, 0.2])
    weights = class_weights(shares, torch.full((2,), 100.0), agreement, sharpness)
    labels = sharpened(torch.stack([1 - p, p]).view(1, 2, 1, -1), sharpness)[0, :, 0]
    found = iou((weights[:, None] * labels).argmax(0) == 1)
    assert found.item() == pytest.approx(best.item(), abs=1e-3)
    assert found > iou(labels.argmax(0) == 1) + 0.03


def lesson(seed, count=3, num_classes=4):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (count, 6, 8), generator=generator)
    soft_labels = torch.nn.functional.one_hot(labels, num_classes).permute(0, 3, 1, 2).float()
    # Each pixel's colour says which image and which class it is of.
    images = torch.stack([labels, torch.arange(count).view(-1, 1, 1).expand_as(labels), labels], 1)
    return LabelledBatch(images.float(), soft_labels)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_a_mix_moves_whole_classes_with_their_labels(seed):
    plain = lesson(seed)
    torch.manual_seed(seed)
    mixed = class_mix(plain)
    for n in range(3):
        other = (n - 1) % 3
        labels = mixed.soft_labels[n].argmax(0)
        assert torch.equal(mixed.images[n, 0].long(), labels)
        pasted = mixed.images[n, 1].long() == other
        assert ((mixed.images[n, 1].long() == n) | pasted).all()
        theirs = plain.soft_labels[other].argmax(0)
        classes = set(theirs[pasted].tolist())
        assert len(classes) == (len(theirs.unique()) + 1) // 2
        for k in classes:
            assert pasted[theirs == k].all()


def test_what_is_not_taught_is_not_pasted():
    plain = lesson(3)
    plain.soft_labels[:, :, :3] = 0
    torch.manual_seed(0)
    mixed = class_mix(plain)
    assert torch.equal(mixed.images[:, 1, :3], plain.images[:, 1, :3])


def test_augmentation_moves_labels_with_their_pixels():
    """Without colour changes, an image that is its own label map stays that."""
    torch.manual_seed(0)
    labels = torch.zeros(4, 32, 64, dtype=torch.int64)
    labels[:, 8:24, 10:40] = 1
    soft_labels = torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()
    images = (labels[:, None] * 255.0).expand(-1, 3, -1, -1)
    augment = StrongAugmentation((32, 64), min_scale=0.5, colour_jitter=0.0, blur_share=0.0)
    seen = augment(LabelledBatch(images, soft_labels))
    known = seen.soft_labels.sum(1) > 0
    same = (seen.images[:, 0] > 127) == (seen.soft_labels.argmax(1) == 1)
    assert known.float().mean() > 0.9
    assert same[known].float().mean() > 0.97
    assert not torch.equal(seen.soft_labels, soft_labels)


def test_an_input_that_cannot_be_blurred_is_refused():
    with pytest.raises(RecipeError, match="2x40 is too small to train on; its sides need 3"):
        StrongAugmentation((40, 2), 0.9, 0.1, 0.1)
    StrongAugmentation((3, 3), 0.9, 0.1, 1.0)(
        LabelledBatch(torch.zeros(2, 3, 3, 3), torch.ones(2, 1, 3, 3))
    )


def test_crops_keep_the_shape_of_things():
    """Of a wide image, too: a side is stretched by at most a quarter against the other."""
    height, width = 96, 192
    rows, columns = torch.meshgrid(
        torch.linspace(0, 255, height), torch.linspace(0, 255, width), indexing="ij"
    )
    images = torch.stack([columns, rows, rows]).repeat(16, 1, 1, 1)
    torch.manual_seed(0)
    augment = StrongAugmentation((height, width), 0.3, 0.0, 0.0)
    found = augment(LabelledBatch(images, torch.ones(16, 1, height, width))).images
    across = (found[:, 0, 48, 191] - found[:, 0, 48, 0]).abs()
    down = found[:, 1, 95, 96] - found[:, 1, 0, 96]
    assert ((across / down) < 1.35).all()
    assert ((across / down) > 0.74).all()
    assert (across * down / 255**2 < 0.95).any(), "they are crops"


def test_a_kornia_that_crops_wrongly_is_said(monkeypatch, caplog):
    monkeypatch.setattr("kornia.__version__", "0.8.2")
    StrongAugmentation((32, 64), 0.9, 0.1, 0.1)
    assert "kornia 0.8.2 crops wide images wrongly" in caplog.text
    caplog.clear()
    monkeypatch.setattr("kornia.__version__", "0.10.0")
    StrongAugmentation((32, 64), 0.9, 0.1, 0.1)
    assert caplog.text == ""


def test_augmentation_is_the_steps_own():
    augment = StrongAugmentation((6, 8), 0.9, 0.3, 0.3)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(augment(lesson(1)))
    assert torch.equal(results[0].images, results[1].images)
    assert torch.equal(results[0].soft_labels, results[1].soft_labels)
