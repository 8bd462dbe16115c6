"""Networks that users bring: they go the whole way, or are told why not."""

import contextlib
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
import user_network
from PIL import Image
from safetensors.torch import load_file

from runtime.backends import open_backend
from runtime.bundle.labels import LabelSpace
from runtime.bundle.manifest import read_manifest
from sfda_edge.cli import main as cli
from sfda_edge.models import ModelSpec
from sfda_edge.models.inference import Normalise
from sfda_edge.runs.directory import read_run

SPACE = 'names = ["road", "car", "sky"]\npalette = [[128, 64, 128], [255, 0, 0], [0, 0, 255]]\n'


def test_grey_is_what_pillow_and_opencv_make_of_colours():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    space = LabelSpace(("a", "b"), ((0, 0, 0), (1, 1, 1)))
    spec = ModelSpec("x", space, (16, 16), mean=(0.4,), std=(0.2,))
    found = Normalise(spec)(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert found.shape == (1, 1, 16, 16)
    level = 255 * (0.4 + 0.2 * found[0, 0].numpy())
    np.testing.assert_allclose(level, np.asarray(Image.fromarray(image).convert("L")), atol=1)
    np.testing.assert_allclose(level, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), atol=0.51)


@pytest.fixture
def weights(tmp_path):
    def saved(name):
        torch.manual_seed(0)
        path = tmp_path / f"{name}.pth"
        path.touch()
        with contextlib.suppress(TypeError, AttributeError, KeyError):  # some cannot be built
            torch.save(getattr(user_network, name)(3).state_dict(), path)
        (tmp_path / "space.toml").write_text(SPACE)
        space = ["--label-space", str(tmp_path / "space.toml"), "--size", "40x24"]
        return str(path), ["--model", f"user_network:{name}", *space]

    return saved


def test_a_grey_network_goes_the_whole_way(weights, labelled_folder, in_empty_folder):
    path, model = weights("grey")
    model += ["--mean", "0.4", "--std", "0.2"]
    images = ["--images", str(labelled_folder / "images")]
    assert cli.main(["adapt", "--method", "bn", "--weights", path, *model, *images]) == 0
    assert (
        cli.main(
            ["evaluate", "--trust-model-code", *images, "--labels", str(labelled_folder / "labels")]
        )
        == 0
    )
    loose = ["--set", "fp16.class_iou=0", "--set", "fp16.label_agreement=0.9"]  # of fresh weights
    assert cli.main(["export", "--fp16", "--trust-model-code", *loose]) == 0
    manifest = read_manifest(in_empty_folder / "bundle")
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    with open_backend("onnxruntime", in_empty_folder / "bundle", manifest) as backend:
        assert (backend.infer(image) == backend.infer(grey)).mean() > 0.99
        assert len(np.unique(backend.infer(image))) > 1


KINDS = ["coarse", "synchronised", "Shared", "Attentive", "as_dict", "as_object", "as_tuple"]
KINDS += ["as_probabilities", "as_sigmoids", "Closed"]


@pytest.mark.parametrize("name", KINDS)
def test_networks_of_many_kinds_go_the_whole_way(name, weights, labelled_folder, in_empty_folder):
    path, model = weights(name)
    images = ["--images", str(labelled_folder / "images")]
    few = ["--set", "steps=2", "--set", "batch_size=2"]
    assert cli.main(["adapt", "--weights", path, *model, *images, *few, "--out", "run"]) == 0
    assert cli.main(["export", "run", "--trust-model-code"]) == 0  # the gate compares them
    assert read_manifest(in_empty_folder / "bundle").label_space.names == ("road", "car", "sky")


def test_labels_that_cannot_be_used_are_said_before_the_run(
    weights, labelled_folder, in_empty_folder, capsys
):
    path, model = weights("build")
    images = ["--images", str(labelled_folder / "images")]
    shutil.copytree(labelled_folder / "images", labelled_folder / "coloured")
    coloured = ["--validation", images[1], "--validation-labels", str(labelled_folder / "coloured")]
    assert cli.main(["adapt", "--weights", path, *model, *images, *coloured]) == 2
    assert "6 of 6 samples cannot be used" in capsys.readouterr().err
    assert not (in_empty_folder / "runs").exists()


@pytest.mark.parametrize("name", ["build", "coarse"])
def test_labels_in_a_plain_folder_score_a_run_and_its_bundle(
    name, weights, labelled_folder, in_empty_folder, capsys, caplog
):
    caplog.set_level("INFO", "sfda_edge")
    path, model = weights(name)
    images = ["--images", str(labelled_folder / "images")]
    scored = ["--validation", images[1], "--validation-labels", str(labelled_folder / "labels")]
    assert cli.main(["adapt", "--method", "bn", "--weights", path, *model, *images, *scored]) == 0
    assert (
        cli.main(
            ["evaluate", "--trust-model-code", *images, "--labels", str(labelled_folder / "labels")]
        )
        == 0
    )
    assert cli.main(["export", "--trust-model-code", *scored]) == 0
    before, after = read_run(in_empty_folder / "runs" / "latest")["result"]["validation"]
    evaluated = json.loads((in_empty_folder / "evaluation" / "evaluation.json").read_text())
    assert before["miou"] > 0
    said = f"mIoU {100 * before['miou']:.1f} before, {100 * after['miou']:.1f} after"
    assert said in caplog.text
    assert after["miou"] == evaluated["miou"]
    scores = read_manifest(in_empty_folder / "bundle").provenance["scores"]
    assert scores["model"] == pytest.approx(100 * after["miou"], abs=1e-3)  # images of input size
    assert scores["shipped"] == pytest.approx(scores["model"], abs=1e-3)
    for flags in (scored[:2], scored[2:]):
        assert cli.main(["adapt", "--weights", path, *model, *images, *flags]) == 2
    errors = capsys.readouterr().err
    assert "--labels, --validation-labels or --source-validation-labels" in errors
    assert "--validation-labels needs --validation IMAGES" in errors


def test_a_network_that_keeps_what_it_made_for_a_size_can_learn(
    weights, labelled_folder, in_empty_folder
):
    path, model = weights("Positioned")
    few = ["--set", "steps=2", "--set", "batch_size=2"]
    images = ["--images", str(labelled_folder / "images")]
    assert cli.main(["adapt", "--weights", path, *model, *images, *few, "--out", "run"]) == 0
    assert read_run(in_empty_folder / "run")["state"] == "finished"


@pytest.mark.parametrize("method", ["sfda", "tent", "multiview"])
def test_parameters_that_its_maker_fixed_stay(method, weights, labelled_folder, in_empty_folder):
    path, model = weights("Smoothed")
    images = ["--images", str(labelled_folder / "images")]
    few = ["--set", "steps=2", "--set", "batch_size=2", "--out", "run"]
    small = ["--set", "fake_hw=[16,32]", "--set", "noise_size=8"] if method == "sfda" else []
    few += ["--method", method, *small]
    assert cli.main(["adapt", "--weights", path, *model, *images, *few]) == 0
    state = load_file(in_empty_folder / "run" / "adapted.safetensors")
    assert (state["kernel"] == torch.full((3, 1, 3, 3), 1 / 9)).all()


def test_a_run_that_cannot_begin_leaves_its_folder_free(
    weights, labelled_folder, in_empty_folder, capsys
):
    path, model = weights("plain_norm")
    call = ["adapt", "--weights", path, *model, "--images", str(labelled_folder / "images")]
    few = ["--set", "steps=2", "--out", "run"]
    assert cli.main([*call, *few, "--method", "tent"]) == 2
    assert "this network has none (affine=False)" in capsys.readouterr().err
    assert cli.main([*call, "--method", "bn", "--set", "batch_size=1", "--out", "other"]) == 0
    assert cli.main([*call, *few, "--set", "seed=-1"]) == 2
    assert cli.main([*call, *few, "--set", "batch_size=2"]) == 0
    assert cli.main([*call, *few, "--set", "batch_size=2"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_one_bad_label_is_said_before_the_run(weights, labelled_folder, in_empty_folder, capsys):
    path, model = weights("build")
    labels = labelled_folder / "labels"
    Image.fromarray(np.full((24, 40), 77, np.uint8)).save(labels / "4.png")
    images = ["--images", str(labelled_folder / "images")]
    scored = ["--validation", images[1], "--validation-labels", str(labels)]
    assert cli.main(["adapt", "--weights", path, *model, *images, *scored, "--out", "run"]) == 2
    assert "4.png: label 77 is outside the 3 classes" in capsys.readouterr().err
    assert not (in_empty_folder / "run").exists()
    for number in range(6):
        Image.fromarray(np.full((24, 40), 255, np.uint8)).save(labels / f"{number}.png")
    for command in (["adapt", "--weights", path, "--out", "run"], ["export", path]):
        assert cli.main([*command, *model, *images, *scored]) == 2
        assert "no pixel has a label that the model knows" in capsys.readouterr().err


def test_where_a_network_cannot_become_a_graph_is_said(weights, labelled_folder, capsys):
    path, model = weights("Undecided")
    images = ["--images", str(labelled_folder / "images")]
    assert cli.main(["export", path, *model, *images]) == 2
    captured = capsys.readouterr()
    assert "torch cannot export this network" in captured.err
    assert re.search(r"at .*user_network\.py:\d+: if images\.mean\(\) > 0:", captured.err)
    assert "def forward" not in captured.err + captured.out  # torch shows all of its graph


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("grey", [], "needs one value of --mean and --std"),
        ("with_depth", [], "one of 4 or more cannot be given images from cameras and files"),
        ("with_depth", ["--mean", *"0000", "--std", *"1111"], "--mean has 4 and --std 4 values"),
        ("grey", ["--mean", "0.5"], "--mean has 1 and --std 3 values"),
        ("grey", ["--mean", "0.5", "--std", "0"], "--std must not hold 0"),
        ("classifier", [], "returned (1, 3); logits (1, 3, h, w) are needed"),
        ("of_other_classes", [], "returned (1, 5, 24, 40); logits (1, 3, h, w) are needed"),
        ("in_two_parts", [], "called with 3, the number of classes, raised TypeError"),
        ("unfinished", [], "raised KeyError: 'layer5'\n  at "),
        ("unfinished", [], 'user_network.py:107: raise KeyError("layer5")'),
        ("as_text", [], "the network returned str; expected a tensor of logits, a dict"),
        ("Random", [], "is not deterministic: module 'always' returned something else"),
        ("Skipping", ["--size", "41x25"], "It takes 64x64: give a --size in multiples of 64"),
        ("build", ["--size", "20000x20000"], "an input of 20000x20000 is not possible"),
        ("no_network", [], "called with 3 returned int; a torch.nn.Module is needed"),
    ],
)
def test_what_cannot_be_fed_or_does_not_answer_says_why(weights, capsys, name, flags, message):
    path, model = weights(name)
    assert cli.main(["export", path, *model, *flags, "--images", "streetsynth:target"]) == 2
    assert message in capsys.readouterr().err
