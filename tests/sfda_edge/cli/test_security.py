"""Nothing that is merely read runs code, reads other folders, or acts on the terminal."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.images import ImageError, read_image
from sfda_edge.cli import main as cli

ROOT = Path(cli.__file__).parents[1]
FEW = ["--method", "bn", "--set", "num_images=8", "--size", "96x48"]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run directory; copied, never changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert cli.main(["adapt", *FEW, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def evil(finished_run, in_empty_folder, monkeypatch):
    """A module that leaves a mark when it is imported, and a run directory that names it."""
    (in_empty_folder / "evil.py").write_text(
        "from pathlib import Path\nPath('imported').touch()\nfrom user_network import build\n"
    )
    monkeypatch.syspath_prepend(str(in_empty_folder))
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    shutil.copytree(finished_run, "run")
    for name in ("model.json", "run.json"):
        path = in_empty_folder / "run" / name
        path.write_text(path.read_text().replace("lite0_fpn_tiny", "evil:build"))
    return in_empty_folder


@pytest.mark.parametrize(
    "command",
    [["evaluate", "run"], ["export", "run"], ["adapt", "--weights", "run"], ["trace", "run"]],
)
def test_code_that_a_file_names_is_not_imported(command, evil, capsys):
    cli.main(command)
    assert not (evil / "imported").exists()
    if command[0] != "trace":
        said = capsys.readouterr().err
        assert "model.json names Python code, 'evil:build', which would be imported" in said
        assert "--model evil:build, or add --trust-model-code" in said


@pytest.mark.parametrize("confirmed", [["--model", "evil:build"], ["--trust-model-code"]])
def test_code_that_the_user_names_is(confirmed, evil):
    assert cli.main(["evaluate", "run", *confirmed]) == 2  # the weights are of another network
    assert (evil / "imported").exists()


RECIPE = """
method = "bn"
[model]
name = "{name}"
label_space = "{space}"
"""


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        ("evil:build", "camvid", "name it with --model evil:build"),
        ("espnetv2_s0.5", "other.toml", "give --label-space"),
    ],
)
def test_code_and_files_that_a_recipe_names_are_not_read(evil, capsys, name, space, message):
    (evil / "recipe.toml").write_text(RECIPE.format(name=name, space=space))
    weights = evil / "weights.safetensors"
    weights.write_bytes((evil / "run" / "adapted.safetensors").read_bytes())
    command = ["adapt", "--weights", str(weights), "--recipe", "recipe.toml", "--size", "96x48"]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err
    assert not (evil / "imported").exists()


def test_code_that_a_training_recipe_names_is_not_imported(evil, capsys):
    recipe = (ROOT / "recipes" / "train-demo.toml").read_text()
    (evil / "mine.toml").write_text(recipe.replace('"lite0_fpn_tiny"', '"evil:build"'))
    assert cli.main(["train", "mine.toml", "--images", "streetsynth:source"]) == 2
    assert "--set model=evil:build" in capsys.readouterr().err
    assert not (evil / "imported").exists()


def test_code_that_a_resumed_run_names_is_not_imported(evil, capsys):
    facts = json.loads((evil / "run" / "run.json").read_text())
    facts |= {"state": "running", "arguments": ["adapt", "--model", "evil:build"]}
    (evil / "run" / "run.json").write_text(json.dumps(facts))
    assert cli.main(["adapt", "--resume", "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert "was started with --model evil:build, which imports Python code" in said
    assert not (evil / "imported").exists()


@pytest.mark.slow
def test_images_that_a_foreign_run_names_are_not_shown(in_empty_folder, capsys):
    for name in ("mine", "private"):
        (in_empty_folder / name).mkdir()
        for index in range(4):
            level = np.full((48, 96, 3), 20 * index + (100 if name == "private" else 0), np.uint8)
            level[:10, :10] += 80  # a single colour would be left out
            Image.fromarray(level).save(in_empty_folder / name / f"{index}.png")
    assert cli.main(["adapt", *FEW, "--images", "mine", "--out", "run"]) == 0
    path = in_empty_folder / "run" / "run.json"
    path.write_text(path.read_text().replace('/mine"', '/private"'))
    assert cli.main(["export", "run"]) == 2
    assert (
        "does not hold the images that the run recorded; give --images" in capsys.readouterr().err
    )
    assert not (in_empty_folder / "bundle").exists()
    assert cli.main(["export", "run", "--images", "private", "--no-pictures"]) == 0
    (in_empty_folder / "run" / "target.sha256").unlink()  # as of older runs
    assert cli.main(["export", "run", "--out", "other"]) == 2
    path.write_text(path.read_text().replace('/private"', '/mine"'))
    assert cli.main(["export", "run", "--out", "other"]) == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".ppm"])
def test_no_image_starts_ghostscript(suffix, tmp_path, monkeypatch):
    """Pillow decides by content; an EPS would start whatever is called gs."""
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    gs.chmod(gs.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / f"a{suffix}").write_text(eps)
    with pytest.raises(ImageError, match="cannot identify image file"):
        read_image(tmp_path / f"a{suffix}")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("command", [["--help"], ["adapt", "--help"], ["export", "no\udcff.pth"]])
def test_every_locale_shows_help_and_errors(locale, encoding, command):
    environment = {**os.environ, "LC_ALL": locale, "PYTHONIOENCODING": encoding}
    arguments = [os.fsencode(part) for part in command]
    done = subprocess.run(
        [sys.executable, "-m", "sfda_edge.cli", *arguments],
        capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert done.returncode == (0 if "--help" in command else 2)


def test_two_runs_in_one_folder_exclude_each_other(in_empty_folder, capsys):
    from sfda_edge.runs.directory import locked

    with locked(in_empty_folder / "run"):
        assert cli.main(["adapt", *FEW, "--out", "run"]) == 2
    assert "another process is writing run" in capsys.readouterr().err
    assert cli.main(["adapt", *FEW, "--out", "run"]) == 0
    assert not (in_empty_folder / "run" / ".lock").exists()
