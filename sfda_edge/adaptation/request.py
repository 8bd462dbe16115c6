"""AdaptRequest and Run: what an adaptation is asked for, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfda_edge.data import ImageSet, ImageSource
from sfda_edge.data.validation import Validation
from sfda_edge.evaluation import Evaluation
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.sliding_windows import SlidingWindows
from sfda_edge.models.source_model import ModelRequest
from sfda_edge.runs.fabric import Precision
from sfda_edge.selection.config import SelectionConfig


@dataclass(frozen=True, eq=False, kw_only=True)
class AdaptRequest:
    """What is to be adapted, to what, and how.

    Attributes:
        model: the source model, or which it is.
        images: the target images; None for the packaged ones.
        windows: cut target images, and score ``validation``, in windows of the input size; None to
            resize images to it, as those of ``source_validation`` always are.
        method: a name in ``METHODS``; None for the recipe's.
        recipe: a recipe's name or file; None for the method's own, or the default.
        overrides: ``KEY=VALUE`` settings.
        selection: constants of label-free selection.
        validation: labelled images to score before and after; they are not used for training.
        source_validation: the same of the source domain: what the model forgets there.
        out_dir: None for a new folder in ``runs/``.
        device: as ``choose_device`` takes it.
        precision: compute precision of the networks.
        compiled: use ``torch.compile``.
        tensorboard: also write the log for TensorBoard.
        resume: continue the run in ``out_dir``.
        skip_bad: leave damaged images out.
        arguments: the command line, which ``--resume`` repeats.
    """

    model: ModelRequest | LoadedModel
    images: ImageSource | None = None
    windows: SlidingWindows | None = None
    method: str | None = None
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    validation: Validation | None = None
    source_validation: Validation | None = None
    out_dir: Path | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    compiled: bool = False
    tensorboard: bool = False
    resume: bool = False
    skip_bad: bool = False
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """A finished adaptation.

    Attributes:
        path: the run directory.
        model: the adapted model.
        home_model: the same weights with the source model's BatchNorm statistics, for images of
            the source domain; None where that would be no other model.
        images: the target images.
        windows: how they were cut; None where they were not.
        selected_step: the step of the model that was selected; None for the unchanged source.
        scores: on the validation images before and after; None without any.
        source_scores: the same on those of the source domain.
        report_path: the page; None where it could not be written.
        result: what ``run.json`` holds of it.
    """

    path: Path
    model: LoadedModel = field(repr=False)  # print(run) is for people
    home_model: LoadedModel | None = field(repr=False)
    images: ImageSet = field(repr=False)
    windows: SlidingWindows | None
    selected_step: int | None
    scores: tuple[Evaluation, Evaluation] | None
    source_scores: tuple[Evaluation, Evaluation] | None
    report_path: Path | None
    result: dict[str, Any] = field(repr=False)
