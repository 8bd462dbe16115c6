"""Scenes are drawn in a process of their own: panda3d allows one renderer in each."""

import subprocess
import sys

import numpy as np
import pytest

from runtime.images import read_image, read_label_map
from sfda_edge.cli import main as cli
from sfda_edge.packaged import SOURCE_DIR, TARGET_DIR


def render(out_dir, *arguments):
    command = [sys.executable, "-m", "sfda_edge.cli", "synth", "--out", str(out_dir), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if "could not open an off-screen buffer" in done.stderr or "pip install" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return out_dir


def only(folder):
    (path,) = folder.iterdir()
    return path


@pytest.mark.slow
def test_a_scene_has_the_same_labels_in_every_style_and_the_packaged_frames_are_it(tmp_path):
    scene = ("--scenes", "41003:1")
    drawn = {
        style: render(tmp_path / style, "--style", style, *scene)
        for style in ("clear", "dusk", "rain")
    }
    labels = {style: read_label_map(only(folder / "labels")) for style, folder in drawn.items()}
    np.testing.assert_array_equal(labels["clear"], labels["dusk"])
    np.testing.assert_array_equal(labels["clear"], labels["rain"])
    assert set(np.unique(labels["clear"])) <= set(range(11))
    images = {s: read_image(only(f / "images")).astype(float) for s, f in drawn.items()}
    assert images["dusk"].mean() < 0.7 * images["clear"].mean()
    assert images["rain"].std() < 0.7 * images["clear"].std()
    packaged = read_label_map(SOURCE_DIR / "labels" / "41003_000.png")
    assert (packaged == labels["clear"]).mean() > 0.999
    picture = read_image(SOURCE_DIR / "images" / "41003_000.jpg").astype(float)
    assert np.abs(picture - images["clear"]).mean() < 2


SEVERAL = """
import sys
from pathlib import Path
from sfda_edge.streetsynth.render import SceneRange, render_images
for name, style in (("first", "clear"), ("second", "dusk")):
    render_images(style, SceneRange(41003, 1), Path(sys.argv[1]) / name)
"""


@pytest.mark.slow
def test_several_sets_rendered_by_one_process_are_those_of_processes_of_their_own(tmp_path):
    """As benchmarks.prepare_tasks does."""
    alone = render(tmp_path / "alone", "--style", "dusk", "--scenes", "41003:1")  # or skips
    command = [sys.executable, "-c", SEVERAL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    second = tmp_path / "second"
    assert only(second / "labels").read_bytes() == only(alone / "labels").read_bytes()
    # A few pixels differ by up to 4 levels in any scene that is not a process's first.
    images = [read_image(only(folder / "images")).astype(float) for folder in (second, alone)]
    assert np.abs(images[0] - images[1]).mean() < 0.01


def test_a_clip_is_a_video_with_a_label_a_frame(tmp_path):
    from sfda_edge.data.video import open_video

    folder = render(tmp_path / "clip", "--clip", "--scenes", "1:2", "--frames", "2")
    images = open_video(folder / "clip.mp4", folder / "labels")
    assert len(images) == 4


def test_source_and_target_are_different_streets():
    names = [{p.stem for p in (d / "images").iterdir()} for d in (SOURCE_DIR, TARGET_DIR)]
    assert not names[0] & names[1]


def test_a_full_folder_is_not_written_into(tmp_path, capsys):
    (tmp_path / "a").touch()
    assert cli.main(["synth", "--out", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
