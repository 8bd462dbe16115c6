"""python -m benchmarks.prepare_tasks: images and source models of the tasks that need no download.

Renders StreetSynth in its styles, draws the subjects of ``benchmarks.drawn`` by both cameras, and
trains the networks of ``benchmarks.networks``. What is there already stays: begun again, it goes on
where it was.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.drawn import CAMERAS, CLASSES, SIZE, write_set
from benchmarks.measuring.program import exit_code_of
from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_result, start_output
from sfda_edge.data.validation import Validation
from sfda_edge.streetsynth.styles import STYLES, Lens, Style
from sfda_edge.training.run import TrainRequest, run_training

# First scene and number of images of each set: no scene is in two of them.
DRAWN = {"train": (10000, 400), "target": (31000, 100), "val": (20000, 60)}
STREETS = {"train": (10000, 400), "target": (31000, 120), "val": (20000, 64)}
WITHOUT_BATCHNORM = {"groupnorm": "unet_groupnorm", "layernorm": "layernorm"}


@dataclass(frozen=True, kw_only=True)
class SourceTraining:
    """How a source model of a task is trained.

    Attributes:
        network: a function of ``benchmarks.networks``.
        images: folder with ``images`` and ``labels`` for training.
        validation: the same, to score at the end.
        label_space: name or file.
        size_hw: input size.
        steps, learning_rate: of training.
    """

    network: str
    images: Path
    validation: Path
    label_space: str
    size_hw: tuple[int, int]
    steps: int
    learning_rate: float

    def recipe(self) -> str:
        """As TOML."""
        height, width = self.size_hw
        return (
            f'model = "benchmarks.networks:{self.network}"\nlabel_space = "{self.label_space}"\n'
            f"input_hw = [{height}, {width}]\nsteps = {self.steps}\nbatch_size = 8\n"
            f"learning_rate = {self.learning_rate}\n"
        )


def prepare(work_dir: Path) -> None:
    """Make what is missing in ``work_dir``."""
    work_dir = work_dir.resolve()
    for style in ("clear", "dusk", "rain"):
        for part in ("train", "target", "val") if style == "clear" else ("target", "val"):
            _once(work_dir / style / part, _rendering(STYLES[style], STREETS[part]))
    for style in ("dusk", "rain"):
        for part, upper in (("target", False), ("val", True)):
            half = half_of(STYLES[style], upper=upper)
            _once(work_dir / f"{style}-out" / part, _rendering(half, STREETS[part]))
    for subject, names in CLASSES.items():
        folder = work_dir / subject
        _once(folder / "train", _drawing(subject, "source", DRAWN["train"]))
        for camera in CAMERAS:
            for part in ("target", "val"):
                _once(folder / camera / part, _drawing(subject, camera, DRAWN[part]))
        listed = ", ".join(f'"{name}"' for name in names)
        (folder / "space.toml").write_text(f"names = [{listed}]\n")
    for folder, training in source_trainings(work_dir).items():
        _once(folder / "model", _training(folder, training))


def source_trainings(work_dir: Path) -> dict[Path, SourceTraining]:
    """The source models to train, by the folder of their task."""
    drawn = {
        work_dir / subject: SourceTraining(
            network="unet",
            images=work_dir / subject / "train",
            validation=work_dir / subject / "source" / "val",
            label_space=str(work_dir / subject / "space.toml"),
            size_hw=(SIZE, SIZE),
            steps=300,
            learning_rate=2e-3,
        )
        for subject in CLASSES
    }
    streets = {
        work_dir / name: SourceTraining(
            network=network,
            images=work_dir / "clear" / "train",
            validation=work_dir / "clear" / "val",
            label_space="camvid",
            size_hw=(192, 384),
            steps=900,
            learning_rate=1e-3,
        )
        for name, network in WITHOUT_BATCHNORM.items()
    }
    return drawn | streets


def _once(place: Path, make: Callable[[Path], object]) -> None:
    """Make a folder that is not there; what is left of an earlier attempt is removed."""
    if place.exists():
        return
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    make(part)
    part.rename(place)
    print_result(f"made: {place}")


def half_of(style: Style, *, upper: bool) -> Style:
    """A style whose light, weather and lens are of one half of their ranges: another evening.

    Every range becomes its lower or its upper half; what is no range stays.
    """

    def halved(value: Any) -> Any:
        if isinstance(value, Lens):
            return _with_ranges(value, halved)
        low, high = value
        middle = (low + high) / 2
        return (middle, high) if upper else (low, middle)

    return _with_ranges(style, halved)


_RANGES = ("ambient", "sun", "sun_height_deg", "clouds", "fog_density", "lens")
_LENS_RANGES = ("gain", "gamma", "blur_px", "noise")


def _with_ranges(look: Any, change: Callable[[Any], Any]) -> Any:
    names = _LENS_RANGES if isinstance(look, Lens) else _RANGES
    return replace(look, **{name: change(getattr(look, name)) for name in names})


def _rendering(style: Style, scenes: tuple[int, int]) -> Callable[[Path], object]:
    def render(out_dir: Path) -> None:
        from sfda_edge.streetsynth.render import SceneRange, render_images

        render_images(style, SceneRange(*scenes), out_dir)

    return render


def _drawing(subject: str, camera: str, scenes: tuple[int, int]) -> Callable[[Path], object]:
    return lambda out_dir: write_set(subject, camera, scenes, out_dir)


def _training(folder: Path, training: SourceTraining) -> Callable[[Path], object]:
    recipe, images, validation = folder / "train.toml", training.images, training.validation

    def train(out_dir: Path) -> None:
        folder.mkdir(exist_ok=True)
        recipe.write_text(training.recipe())
        run_training(
            TrainRequest(
                recipe=str(recipe),
                images=str(images / "images"),
                labels_dir=images / "labels",
                validation=Validation(str(validation / "images"), validation / "labels"),
                overrides=(f"model=benchmarks.networks:{training.network}",),  # confirms the code
                out_dir=out_dir,
            )
        )

    return train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare_tasks",
        description="Make the images and source models of the adaptation benchmark.",
    )
    parser.add_argument("--work", type=Path, default=Path("work"), metavar="DIR")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    return exit_code_of(lambda: prepare(args.work))


if __name__ == "__main__":
    sys.exit(main())
