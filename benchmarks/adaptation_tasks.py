"""The tasks that adaptation is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfda_edge.errors import DataError
from sfda_edge.models.source_model import ModelRequest


@dataclass(frozen=True, eq=False, kw_only=True)
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
    flags: ModelRequest
    target: str
    validation: str
    labels_dir: Path | None = None


def benchmark_tasks(data_dir: Path | None, work_dir: Path) -> dict[str, BenchmarkTask]:
    """The tasks by letter.

    Args:
        data_dir: holds CamVid and the Cityscapes weights, for A, B and D.
        work_dir: holds what ``sfda-edge synth`` has rendered, for C, E and F: ``target`` and
            ``val`` in each of ``dusk``, ``rain`` and ``clear``.
    """
    real = data_dir or Path("shared")
    camvid = f"camvid:{real}/data/camvid"
    packaged = ModelRequest()  # trained on StreetSynth's clear style, with train-demo

    def to_camvid(title: str, source: ModelRequest) -> BenchmarkTask:
        return BenchmarkTask(
            title=title, flags=source, target=f"{camvid}/train", validation=f"{camvid}/val"
        )

    def to_style(style: str) -> BenchmarkTask:
        rendered = f"streetsynth:{work_dir / style}"
        title = f"StreetSynth clear → {style}"
        return BenchmarkTask(
            title=title,
            flags=packaged,
            target=f"{rendered}/target",
            validation=f"{rendered}/val",
        )

    return {
        "A": to_camvid("Cityscapes → CamVid, ESPNetv2 s2.0", _cityscapes(real, "s2.0", "1024x512")),
        "B": to_camvid("StreetSynth → CamVid", packaged),
        "C": to_style("dusk"),
        "D": to_camvid("Cityscapes → CamVid, ESPNetv2 s0.5", _cityscapes(real, "s0.5", "512x256")),
        "E": to_style("rain"),
        "F": to_style("clear"),  # no domain shift: nothing to gain
    }


def _cityscapes(data_dir: Path, width: str, trained_size: str) -> ModelRequest:
    return ModelRequest(
        data_dir / "weights" / f"espnetv2_{width}_cityscapes_{trained_size}.safetensors",
        architecture=f"espnetv2_{width}",
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
