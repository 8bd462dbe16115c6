"""The tasks that adaptation is measured on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.drawn import CLASSES
from benchmarks.prepare_tasks import WITHOUT_BATCHNORM
from sfda_edge.data import open_images
from sfda_edge.data.images import ImageSet
from sfda_edge.errors import DataError
from sfda_edge.models.source_model import ModelRequest

OTHER_DRIVES = ("0006R0", "0001TP")  # of CamVid's training images; val is of drive 0016E5


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchmarkTask:
    """A source model, target images and labelled images to score on.

    Attributes:
        title: for the table.
        flags: the source model.
        target: images to adapt to, as ``open_images`` takes them.
        drives: only the images whose names begin so; empty for all.
        validation: labelled images.
        labels_dir: of a plain folder of them.
        home: labelled images of the source domain, which the source model has not seen; None where
            there are none.
        home_labels_dir: of a plain folder of them.
    """

    title: str
    flags: ModelRequest
    target: str
    validation: str
    labels_dir: Path | None = None
    drives: tuple[str, ...] = ()
    home: str | None = None
    home_labels_dir: Path | None = None

    def target_images(self) -> ImageSet:
        """The images to adapt to.

        Raises:
            DataError: there are none.
        """
        images = open_images(self.target)
        if not self.drives:
            return images
        kept = tuple(s for s in images.samples if Path(s.name).name.startswith(self.drives))
        if not kept:
            raise DataError(f"{self.target} has no image of drives {', '.join(self.drives)}")
        return replace(images, samples=kept)


def benchmark_tasks(data_dir: Path | None, work_dir: Path) -> dict[str, BenchmarkTask]:
    """The tasks by name.

    In A, B and D more than half of the target images are of the drive that is scored. In A-out,
    B-out and D-out none is: what was learned has to carry over to another drive. In C-out and E-out
    light, weather and lens of the scored images are of the other half of their ranges.

    Args:
        data_dir: holds CamVid and the Cityscapes weights, for A, B and D.
        work_dir: what ``prepare_tasks`` has made, for all others but ``clip``.
    """
    packaged = ModelRequest()  # trained on StreetSynth's clear style, with train-demo
    clear = f"streetsynth:{work_dir / 'clear'}/val"

    def to_style(style: str) -> BenchmarkTask:
        rendered = f"streetsynth:{work_dir / style}"
        title = f"StreetSynth clear → {style}"
        return BenchmarkTask(
            title=title,
            flags=packaged,
            target=f"{rendered}/target",
            validation=f"{rendered}/val",
            home=clear,
        )

    return {
        **_camvid(data_dir or Path("shared"), packaged, clear),
        "C": to_style("dusk"),
        "C-out": to_style("dusk-out"),
        "E": to_style("rain"),
        "E-out": to_style("rain-out"),
        "F": to_style("clear"),  # no domain shift: nothing to gain
        **_drawn(work_dir),
        **_without_batchnorm(work_dir),
        "clip": BenchmarkTask(
            title="StreetSynth clear → the packaged dusk images, scored on the dusk clip",
            flags=packaged,
            target="streetsynth:target",
            validation="streetsynth:clip",
            home=clear,
        ),
    }


def _camvid(data_dir: Path, packaged: ModelRequest, clear: str) -> dict[str, BenchmarkTask]:
    """Three models to CamVid, from all of its drives and without the one that is scored."""
    camvid = f"camvid:{data_dir}/data/camvid"
    models = {
        "A": ("Cityscapes → CamVid, ESPNetv2 s2.0", _cityscapes(data_dir, "s2.0", "1024x512")),
        "B": ("StreetSynth → CamVid", packaged),
        "D": ("Cityscapes → CamVid, ESPNetv2 s0.5", _cityscapes(data_dir, "s0.5", "512x256")),
    }
    return {
        f"{letter}{ending}": BenchmarkTask(
            title=title,
            flags=model,
            target=f"{camvid}/train",
            validation=f"{camvid}/val",
            drives=drives,
            home=clear if model is packaged else None,
        )
        for ending, drives in (("", ()), ("-out", OTHER_DRIVES))
        for letter, (title, model) in models.items()
    }


def _drawn(work_dir: Path) -> dict[str, BenchmarkTask]:
    """A U-Net of each drawn subject to the other camera, and to its own: nothing to gain."""
    tasks = {}
    for subject in CLASSES:
        model = trained_model(work_dir / subject, "unet")
        home = work_dir / subject / "source" / "val"
        for camera, name in (("target", subject), ("source", f"{subject}-home")):
            images = work_dir / subject / camera
            tasks[name] = BenchmarkTask(
                title=f"{subject}, source → {camera} camera",
                flags=model,
                target=str(images / "target" / "images"),
                validation=str(images / "val" / "images"),
                labels_dir=images / "val" / "labels",
                home=str(home / "images"),
                home_labels_dir=home / "labels",
            )
    return tasks


def _without_batchnorm(work_dir: Path) -> dict[str, BenchmarkTask]:
    """Networks of other normalisations, trained on StreetSynth's clear style, to dusk."""
    rendered = f"streetsynth:{work_dir}"
    return {
        name: BenchmarkTask(
            title=f"StreetSynth clear → dusk, {name}",
            flags=trained_model(work_dir / name, network),
            target=f"{rendered}/dusk/target",
            validation=f"{rendered}/dusk/val",
            home=f"{rendered}/clear/val",
        )
        for name, network in WITHOUT_BATCHNORM.items()
    }


def trained_model(folder: Path, network: str) -> ModelRequest:
    """A network of ``benchmarks.networks`` that ``prepare_tasks`` has trained."""
    return ModelRequest(folder / "model", architecture=f"benchmarks.networks:{network}")


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
