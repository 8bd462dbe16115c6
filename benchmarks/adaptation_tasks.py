"""The tasks that adaptation is measured on."""

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
        data_dir: holds CamVid and the Cityscapes weights, for A, B and D.
        work_dir: holds what ``sfda-edge synth`` has rendered, for C and E: ``dusk/target``,
            ``dusk/val``, ``rain/target`` and ``rain/val``.
    """
    real = data_dir or Path("shared")
    camvid = tuple(f"camvid:{real}/data/camvid/{part}" for part in ("train", "val"))
    packaged = ModelFlags(None)  # trained on StreetSynth's clear style, with train-demo
    large = _cityscapes(real, "s2.0", "1024x512")
    small = _cityscapes(real, "s0.5", "512x256")
    dusk, rain = (
        tuple(f"streetsynth:{work_dir / style / part}" for part in ("target", "val"))
        for style in ("dusk", "rain")
    )
    return {
        "A": BenchmarkTask("Cityscapes → CamVid, ESPNetv2 s2.0", large, *camvid),
        "B": BenchmarkTask("StreetSynth → CamVid", packaged, *camvid),
        "C": BenchmarkTask("StreetSynth clear → dusk", packaged, *dusk),
        "D": BenchmarkTask("Cityscapes → CamVid, ESPNetv2 s0.5", small, *camvid),
        "E": BenchmarkTask("StreetSynth clear → rain", packaged, *rain),
    }


def _cityscapes(data_dir: Path, width: str, trained_size: str) -> ModelFlags:
    return ModelFlags(
        data_dir / "weights" / f"espnetv2_{width}_cityscapes_{trained_size}.safetensors",
        model=f"espnetv2_{width}",
        label_space="cityscapes20",
        size_hw=(256, 512),
        class_map="cityscapes-camvid",
    )


def require_task(tasks: dict[str, BenchmarkTask], letter: str) -> BenchmarkTask:
    """A task by its letter.

    Raises:
        DataError: there is none.
    """
    if letter not in tasks:
        raise DataError(f"unknown task '{letter}'; known: {', '.join(tasks)}")
    return tasks[letter]
