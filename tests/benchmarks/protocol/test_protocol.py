"""Published protocols: their figures, and each from end to end on small official layouts."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "sfda_edge"))

import official_layouts as official

from benchmarks.protocol import __main__ as protocol
from benchmarks.protocol import cost
from benchmarks.protocol.file import Mean, Protocol, Published, load_protocol, protocol_names
from benchmarks.protocol.table import mean_iou, protocol_table
from runtime.bundle.manifest import file_sha256
from sfda_edge.errors import RecipeError
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models import MODELS
from sfda_edge.packaged import MODEL_DIR
from sfda_edge.recipes.recipe import recipe_names

RECIPES = Path(__file__).parents[3] / "sfda_edge/recipes/published"
# A step of everything, on images of 64x32.
QUICK = ["--train-set", "steps=1", "--train-set", "batch_size=2", "--train-set", "input_hw=[32,64]"]
QUICK += ["--set", "steps=1", "--set", "batch_size=2", "--set", "fake_hw=[32,64]"]
QUICK += ["--set", "patches_per_side=2", "--size", "64x32"]
TINY = ["--train-set", "model=lite0_fpn_tiny"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every data set, a few images large."""
    folder = tmp_path_factory.mktemp("data")
    for layout, (name, write, _) in official.OFFICIAL.items():
        if layout == name:
            write(folder / name)
    return folder


# ---- the figures


@pytest.mark.parametrize("name", protocol_names())
def test_classes_of_a_row_have_the_mean_that_was_published(name):
    found = load_protocol(name)
    assert f"published/{found.recipe}" in recipe_names()
    classes = LABEL_SPACES[found.model.label_space].names
    iou = found.published.iou
    assert set(iou) <= set(classes)
    if set(iou) == set(classes):
        assert statistics.mean(iou.values()) == pytest.approx(found.published.miou, abs=0.06)
        for mean in found.means:
            kept = [value for key, value in iou.items() if key not in mean.without]
            assert statistics.mean(kept) == pytest.approx(mean.published, abs=0.06)


def test_every_row_of_the_method_s_page_has_a_protocol():
    """mIoU, or an IoU, of the nine rows that docs/methods.md lists."""
    found = [load_protocol(name).published for name in protocol_names()]
    figures = {published.miou for published in found}
    assert figures >= {43.16, 45.8, 42.4, 54.76, 38.21, 42.7, 48.33, 49.03, 46.36, 47.20}
    # Its own ablations: without the patch module, and transfer alone.
    assert figures >= {41.35, 34.43, 37.50, 47.38, 47.75, 45.18, 45.38, 45.87, 44.03, 43.96, 43.55}
    assert any(published.iou.get("scissors") == 66.05 for published in found)
    assert any(published.iou.get("road") == 84.2 for published in found)
    assert any(published.iou.get("rider") == 27.3 for published in found)


def test_the_table_shows_ours_beside_the_published():
    row = Protocol(
        recipe="gta5-cityscapes",
        source="gta5/all",
        target="cityscapes/train",
        scored="cityscapes/val",
        means=(Mean(name="without b", without=("b",), published=50.0, published_source=36.1),),
        published=Published(source_miou=34.0, miou=43.2, iou={"a": 12.3}),
    )
    before = {"iou": {"a": 0.1, "b": 0.3, "c": None}, "miou": 0.2}
    after = {"iou": {"a": 0.5, "b": 0.25, "c": None}, "miou": 0.375}
    assert [line.split() for line in protocol_table(row, before, after).splitlines()] == [
        ["class", "source", "ours", "published"],
        ["a", "10.0", "50.0", "12.3"],
        ["b", "30.0", "25.0", "–"],
        ["c", "–", "–", "–"],
        ["mIoU", "20.0", "37.5", "43.2"],
        ["without", "b", "10.0", "50.0", "50.0"],
        ["published", "source", "model:", "mIoU", "34.0;", "without", "b", "36.1"],
    ]
    assert mean_iou({"a": None}, ()) is None


def test_a_protocol_of_no_data_set_or_no_file_is_an_error():
    with pytest.raises(RecipeError, match="unknown protocol 'atlantis'; known: cityscapes-dense"):
        load_protocol("atlantis")
    with pytest.raises(ValueError, match="gta5/val is no split"):
        Protocol(recipe="", source="gta5/val", target="gta5/all", scored="gta5/all")


def test_a_recipe_says_the_figure_of_its_protocol():
    """Both are copied from the paper; a slip in one of them shows."""
    for name in protocol_names():
        found = load_protocol(name)
        text = (RECIPES / f"{found.recipe}.toml").read_text()
        miou = found.published.miou
        assert miou is None or f"{miou:.2f}" in text or f"{miou:.1f}" in text, name


# ---- end to end


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_runs_from_end_to_end(name, data, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [name, "--data", str(data), "--out", str(out), *QUICK, *TINY]
    assert protocol.main(arguments) == 0
    printed = capsys.readouterr().out
    found = load_protocol(name)
    classes = LABEL_SPACES[found.model.label_space].names
    assert all(f"\n{class_name} " in printed for class_name in classes)
    assert all(mean.name in printed for mean in found.means)
    record = json.loads((out / "sfda.json").read_text())
    assert record["protocol"] == name
    before, after = record["validation"]
    assert list(before["iou"]) == list(after["iou"]) == list(classes)
    assert record["inputs"]["images"].endswith(found.target.partition("/")[2])
    if found.target.startswith("cross-city"):
        assert before["num_images"] == 2


def test_what_was_done_is_not_done_again(data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = ["cityscapes-rio", "--data", str(data), "--out", str(out), *QUICK, *TINY]
    assert protocol.main([*arguments, "--source-only"]) == 0
    weights = out / "source" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    assert not (out / "sfda").exists()
    assert protocol.main(arguments) == 0
    first = (out / "sfda" / "run.json").stat().st_mtime_ns
    capsys.readouterr()
    assert protocol.main(arguments) == 0
    assert "mIoU" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == trained
    assert (out / "sfda" / "run.json").stat().st_mtime_ns == first
    # Other arguments are no reason to show figures of these.
    for changed in (
        ["--set", "seed=5"],
        ["--size", "96x48"],
        ["--train-set", "seed=9"],
        ["--skip-bad"],
    ):
        assert protocol.main([*arguments, *changed]) == 2
        assert "was made with another" in capsys.readouterr().err
    asked = (out / "source.asked.json").read_text()
    shutil.move(out / "source", tmp_path / "first")
    assert protocol.main([*arguments, "--train-set", "seed=9"]) == 2
    assert "was made with another source;" in capsys.readouterr().err
    shutil.rmtree(out / "source")
    shutil.move(tmp_path / "first", out / "source")
    (out / "source.asked.json").write_text("damaged")
    assert protocol.main(arguments) == 2
    assert "source was made with another images, train_set" in capsys.readouterr().err
    (out / "source.asked.json").unlink()
    assert protocol.main(arguments) == 2
    assert "source.asked.json, which says what source was made with," in capsys.readouterr().err
    (out / "source.asked.json").write_text(asked)
    # Nor is another way to write the same folder one.
    monkeypatch.chdir(data.parent)
    assert protocol.main(["cityscapes-rio", "--data", data.name, *arguments[3:]]) == 0
    # Another method has a folder of its own, beside.
    arguments = [*arguments[: arguments.index("--set")], "--size", "64x32", *TINY]
    assert protocol.main([*arguments, "--method", "bn"]) == 0
    assert json.loads((out / "bn" / "run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_a_killed_protocol_continues_where_it_was(data, tmp_path):
    out = tmp_path / "out"
    arguments = ["cityscapes-rio", "--data", str(data), "--out", str(out), *QUICK, *TINY]
    arguments += ["--train-set", "steps=100000", "--train-set", "checkpoint_every=1"]
    command = [sys.executable, "-m", "benchmarks.protocol", *arguments]
    checkpoint = out / "source" / "checkpoints" / "last.pt"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not checkpoint.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    state = json.loads((out / "source" / "run.json").read_text())["state"]
    assert state == "running"
    import torch

    reached = torch.load(checkpoint, weights_only=True)["next_step"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while torch.load(checkpoint, weights_only=True)["next_step"] <= reached:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()


def test_given_weights_need_no_source_images(data, tmp_path, capsys):
    out = tmp_path / "out"
    base = ["cityscapes-rome", *QUICK, *TINY]
    begun = tmp_path / "encoder.pth"
    torch.save({"model": MODELS["lite0_fpn_tiny"].build(2).state_dict()}, begun)
    whole = [*base, "--data", str(data), "--out", str(out)]
    arguments = [*whole, "--source-only"]
    named = ["--initial-weights", str(begun), "--weights-key", "model"]
    assert protocol.main([*whole, *named]) == 0
    inputs = json.loads((out / "source" / "run.json").read_text())["inputs"]
    assert inputs["initial_weights_sha256"] == file_sha256(begun)
    assert protocol.main(whole) == 0, "what a finished source began with need not be named again"
    torch.save(MODELS["lite0_fpn_tiny"].build(2).state_dict(), begun)
    assert protocol.main([*arguments, "--initial-weights", str(begun)]) == 2
    assert "was made with another initial_weights" in capsys.readouterr().err
    without = tmp_path / "data"
    without.mkdir()
    (without / "cross-city").symlink_to(data / "cross-city")
    arguments = [*base, "--data", str(without), "--out", str(tmp_path / "other")]
    assert protocol.main([*arguments, "--weights", str(out / "source")]) == 0
    assert not (tmp_path / "other" / "source").exists()
    assert protocol.main(arguments) == 2
    assert "cityscapes:" in capsys.readouterr().err


def test_weights_of_other_classes_are_refused(data, tmp_path, capsys):
    """Their scores would stand beside a published row, and their numbers in a server's files."""
    arguments = ["cityscapes-rome", "--data", str(data), "--out", str(tmp_path / "out"), *QUICK]
    assert protocol.main([*arguments, "--weights", str(MODEL_DIR)]) == 2
    said = capsys.readouterr().err
    assert "predicts 11 classes (sky, " in said
    assert "this row reports 13 (road, " in said


def test_a_panorama_is_cut_into_windows_whose_sides_are_joined(data, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["stanford2d3d", "--data", str(data), "--out", str(out), *QUICK, *TINY]
    assert protocol.main([*arguments, "--wrap"]) == 2
    assert "--windows SCALE" in capsys.readouterr().err
    assert protocol.main([*arguments, "--windows", "2", "--wrap"]) == 0
    run = json.loads((out / "sfda" / "run.json").read_text())
    assert run["inputs"]["windows"] == {"scale": 2.0, "wrap": True}
    cut = (out / "sfda" / "target.sha256").read_text().splitlines()
    assert len(cut) == 5 * 3 * 3
    assert protocol.main(arguments) == 2
    assert "was made with another windows" in capsys.readouterr().err


def test_label_maps_for_the_server_are_label_ids_at_the_image_s_size(data, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["gta5-cityscapes-segnet", "--data", str(data), "--out", str(out), *QUICK, *TINY]
    assert protocol.main([*arguments, "--test-export"]) == 0
    files = sorted((out / "sfda-test").iterdir())
    assert [path.name for path in files] == [f"bonn_00000{n}_000019.png" for n in range(2)]
    for path in files:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", official.IMAGE_HW[::-1])
            assert set(np.unique(image)) <= set(official.CITYSCAPES_IDS)
    files[0].unlink()
    kept = files[1].stat().st_mtime_ns
    assert protocol.main([*arguments, "--test-export"]) == 0
    assert files[0].exists(), "what is missing is written"
    assert files[1].stat().st_mtime_ns == kept
    weights = out / "sfda" / "adapted.safetensors"
    state = load_file(weights)
    save_file({name: value + 0.1 for name, value in state.items()}, weights)
    assert protocol.main([*arguments, "--test-export"]) == 2
    assert "sfda-test has label maps of another model" in capsys.readouterr().err
    shutil.rmtree(out / "sfda-test")
    assert protocol.main([*arguments, "--test-export"]) == 0


# ---- what users get wrong


def test_a_dry_run_says_what_is_there_and_what_it_takes(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured = cost._one_image
    smaller = lambda model, spec, device: measured(model, replace(spec, input_hw=(64, 128)), device)
    monkeypatch.setattr(cost, "_one_image", smaller)  # at 1024x512 it takes a minute
    arguments = ["cityscapes-rome", "--data", str(data), "--dry-run", "--method", "multiview"]
    assert protocol.main(arguments) == 1, "images are missing"
    printed = capsys.readouterr().out
    assert f"cross-city/Rome-train        2 of 3200 images, cross-city:{data}/cross-city" in printed
    assert "source model  about" in printed
    assert "multiview     about" in printed
    assert "GB" in printed
    assert list(tmp_path.iterdir()) == []
    torch.save({"conv1.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    assert protocol.main([*arguments, "--initial-weights", "other.pth"]) == 2
    assert "other.pth is of another network" in capsys.readouterr().err


def test_half_a_download_is_said_before_anything_is_trained(data, tmp_path, capsys):
    folder = tmp_path / "cross-city"
    shutil.copytree(data / "cross-city", folder)
    next((folder / "Rome/Labels/Test").iterdir()).unlink()
    arguments = ["cityscapes-rome", "--data", str(data), "--out", str(tmp_path / "out"), *QUICK]
    assert protocol.main([*arguments, "--data-set", f"cross-city={folder}"]) == 2
    assert "no label map for 1 of 2 images" in capsys.readouterr().err
    shutil.rmtree(folder / "Rome/Images/Train")
    assert protocol.main([*arguments, "--data-set", f"cross-city={folder}"]) == 2
    assert "expected Rome/Images/Train/{frame}.{ending}" in capsys.readouterr().err
    shutil.rmtree(folder / "Rome/Labels")
    shutil.copytree(data / "cross-city/Rome/Images/Train", folder / "Rome/Images/Train")
    assert protocol.main([*arguments, "--data-set", f"cross-city={folder}"]) == 2
    assert "Rome-test has no labels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_arguments_that_contradict_each_other_are_refused(data, tmp_path, capsys):
    arguments = ["cityscapes-rome", "--data", str(data), "--out", str(tmp_path / "out")]
    for flags in (["--source-only"], ["--initial-weights", "encoder.pth"]):
        assert protocol.main([*arguments, *flags, "--weights", "nowhere.pth"]) == 2
        assert "give one" in capsys.readouterr().err
    assert protocol.main([*arguments, "--initial-weights", "nowhere.pth"]) == 2
    assert "nowhere.pth does not exist" in capsys.readouterr().err
    assert protocol.main([*arguments, "--weights-key", "model"]) == 2
    assert "--weights-key model names a part of a file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        protocol.main([*arguments, "--data-set", "gta=/x"])
    assert "with a NAME of gta5" in capsys.readouterr().err


def test_a_test_split_is_no_part_of_every_protocol(data, tmp_path, capsys):
    arguments = ["cityscapes-rome", "--data", str(data), "--test-export"]
    assert protocol.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "has no split whose labels a server holds back" in capsys.readouterr().err


def test_several_processes_wait_for_a_source_model(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    arguments = ["cityscapes-rome", "--data", str(data), "--out", str(tmp_path / "out"), *QUICK]
    assert protocol.main(arguments) == 2
    assert "call it with --source-only first, without torchrun" in capsys.readouterr().err
