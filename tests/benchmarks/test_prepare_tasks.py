"""The images and source models of the adaptation benchmark."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from benchmarks import prepare_tasks
from benchmarks.drawn import CAMERAS, CLASSES, SIZE, draw
from benchmarks.networks import layernorm, unet, unet_groupnorm
from benchmarks.prepare_tasks import half_of, prepare, source_trainings
from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.streetsynth.styles import STYLES, Lens


@pytest.mark.parametrize("subject", sorted(CLASSES))
def test_both_cameras_see_all_classes_of_a_subject(subject):
    for camera in CAMERAS.values():
        images, labels = zip(*(draw(subject, camera, seed) for seed in range(3)), strict=True)
        assert images[0].shape == (SIZE, SIZE, 3)
        assert images[0].dtype == np.uint8
        assert len({image.tobytes() for image in images}) == 3
        for label_map in labels:
            assert np.unique(label_map).tolist() == list(range(len(CLASSES[subject])))
    again, _ = draw(subject, camera, 2)
    assert np.array_equal(again, images[2])


def test_half_a_style_is_within_it_and_apart_from_the_other_half():
    for style in STYLES.values():
        lower, upper = half_of(style, upper=False), half_of(style, upper=True)
        for whole, low, high in ((style, lower, upper), (style.lens, lower.lens, upper.lens)):
            halved = 0
            for field in fields(whole):
                range_, first, second = (getattr(look, field.name) for look in (whole, low, high))
                if first == second or isinstance(first, Lens):
                    continue
                assert (first[0], second[1]) == range_
                assert first[1] == second[0]
                halved += 1
            assert halved >= 3


def test_what_is_there_stays_and_the_rest_is_made(tmp_path, monkeypatch):
    made = []

    def record(kind):
        def make(*arguments):
            out_dir = arguments[-1] if kind != "trained" else arguments[0].out_dir
            made.append((kind, out_dir.name.removesuffix(".part")))
            out_dir.mkdir()

        return make

    monkeypatch.setattr("sfda_edge.streetsynth.render.render_images", record("rendered"))
    monkeypatch.setattr(prepare_tasks, "write_set", record("drawn"))
    monkeypatch.setattr(prepare_tasks, "run_training", record("trained"))
    (tmp_path / "dusk" / "val").mkdir(parents=True)
    half_done = tmp_path / "organs" / "train.part"
    half_done.mkdir(parents=True)
    prepare(tmp_path)
    assert not half_done.exists()
    assert made.count(("trained", "model")) == len(source_trainings(tmp_path)) == 5
    assert len([kind for kind, _ in made if kind == "drawn"]) == 3 * 5
    assert len([kind for kind, _ in made if kind == "rendered"]) == 3 + 2 + 2 + 2 + 2 - 1
    made.clear()
    prepare(tmp_path)
    assert made == []


@pytest.mark.parametrize(
    ("build", "parts", "has_batchnorm"),
    [(unet, 1, True), (unet_groupnorm, 2, False), (layernorm, 4, False)],
)
def test_networks_take_any_multiple_of_32(build, parts, has_batchnorm):
    model = build(5).eval()
    assert bool(batchnorm_layers(model)) is has_batchnorm
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 64, 96))
    assert logits.shape == (1, 5, 64 // parts, 96 // parts)
