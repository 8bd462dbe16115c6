"""The three tasks that adaptation is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfda_edge.errors import DataError
from sfda_edge.model_source import ModelFlags


@dataclass(frozen=True)
class BenchmarkTask:
    """A source model, target images and labelled images to score on.

    Attributes:
        title: for the table.
        flags: the source model.
        target: images to adapt to, as ``open_images`` takes them.
        validation: labelled images.
        labels_dir: of a plain folder of them.
    """

    title: str
    flags: ModelFlags
    target: str
    validation: str
    labels_dir: Path | None = None


def benchmark_tasks(data_dir: Path | None, work_dir: Path) -> dict[str, BenchmarkTask]:
    """The tasks by letter.

    Args:
        data_dir: holds CamVid and the Cityscapes weights, for A and B.
        work_dir: holds what ``sfda-edge synth`` and ``sfda-edge train`` have made, for B and C:
            ``light`` (a train-light run), ``dusk/target`` and ``dusk/val``.
    """
    real = data_dir or Path("shared")
    camvid_train, camvid_val = (f"camvid:{real}/data/camvid/{part}" for part in ("train", "val"))
    cityscapes = ModelFlags(
        real / "weights" / "espnetv2_s2.0_cityscapes_1024x512.safetensors",
        model="espnetv2_s2.0",
        label_space="cityscapes20",
        size_hw=(256, 512),
        class_map="cityscapes-camvid",
    )
    dusk = work_dir / "dusk"
    return {
        "A": BenchmarkTask("Cityscapes → CamVid", cityscapes, camvid_train, camvid_val),
        "B": BenchmarkTask(
            "StreetSynth → CamVid", ModelFlags(work_dir / "light"), camvid_train, camvid_val
        ),
        "C": BenchmarkTask(
            "StreetSynth clear → dusk",
            ModelFlags(None),
            f"streetsynth:{dusk / 'target'}",
            f"streetsynth:{dusk / 'val'}",
        ),
    }


def require_task(tasks: dict[str, BenchmarkTask], letter: str) -> BenchmarkTask:
    """A task by its letter.

    Raises:
        DataError: there is none.
    """
    if letter not in tasks:
        raise DataError(f"unknown task '{letter}'; known: {', '.join(tasks)}")
    return tasks[letter]
