"""The public functions of sfda_edge; the command line calls the same code."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from runtime.bundle.labels import LabelSpace
from sfda_edge.adaptation.request import AdaptRequest, Run
from sfda_edge.adaptation.run import run_adaptation
from sfda_edge.data import ImageSource, open_images
from sfda_edge.data.relabel import with_label_classes
from sfda_edge.data.validation import optional_validation
from sfda_edge.data.windows import warn_of_other_windows
from sfda_edge.errors import CheckpointError
from sfda_edge.evaluation import Evaluation, Predictor
from sfda_edge.evaluation import evaluate as evaluate_predictor
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.python_request import python_request
from sfda_edge.models.sliding_windows import SlidingWindows
from sfda_edge.models.source_model import load_source
from sfda_edge.models.spec import Channels
from sfda_edge.recipes.recipe import toml_value
from sfda_edge.report.evaluation import SheetCollector, make_folder, write_evaluation
from sfda_edge.runs.device import choose_device
from sfda_edge.runs.fabric import Precision
from sfda_edge.runs.progress import progress_bar
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.training.run import TrainedModel, TrainRequest, run_training

ModelSource = LoadedModel | Run | nn.Module | str | Path | None


def load_model(
    model: ModelSource = None,
    *,
    weights: str | Path | None = None,
    architecture: str | None = None,
    class_names: Sequence[str] | None = None,
    palette: Sequence[tuple[int, int, int]] | None = None,
    label_space: str | LabelSpace | None = None,
    size_hw: tuple[int, int] | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    class_map: str | None = None,
) -> LoadedModel:
    """Load a model: a network in Python, a run directory, weights, or the packaged one.

    Args:
        model: an ``nn.Module`` from images (N, 3, H, W) to logits (N, C, h, w), which returns a
            tensor, a dict with ``out``, an object with ``.logits``, or a tuple or list that begins
            with the logits (or probabilities; of two classes also the second one's alone); or the
            path of a run directory or weights; None for the packaged network.
        weights: weights to load into a network in Python; without ``model``, as ``model``.
        architecture: the network of weights without a ``model.json``: a name of ``sfda-edge adapt
            --help`` or ``package.module:function``.
        class_names: of the network's outputs, in order; or use ``label_space``.
        palette: a colour (red, green, blue) for each; None for colours spread over the hues.
        label_space: a name such as ``cityscapes``, a TOML file, or a ``LabelSpace``.
        size_hw: height and width that images are resized to, in pixels.
        mean: of RGB values in [0, 1]; None for ImageNet's.
        std: of RGB values in [0, 1]; None for ImageNet's.
        class_map: a name such as ``cityscapes-camvid``, a TOML file, or ``none``.

    Raises:
        SfdaEdgeError: the weights do not fit, the network returns something else, or too little is
            known of the model.
    """
    if isinstance(model, LoadedModel | Run):
        options = (weights, architecture, class_names, palette, label_space, size_hw, mean, std)
        if any(option is not None for option in (*options, class_map)):
            raise CheckpointError(
                "a model that is loaded already takes no further options; give them to the "
                "load_model call that loads it"
            )
        return (model.model if isinstance(model, Run) else model).as_it_is()
    return load_source(
        python_request(
            model,
            weights=weights,
            architecture=architecture,
            class_names=class_names,
            palette=palette,
            label_space=label_space,
            size_hw=size_hw,
            mean=mean,
            std=std,
            class_map=class_map,
        )
    )


def adapt(
    model: ModelSource = None,
    images: ImageSource | None = None,
    *,
    windows: SlidingWindows | None = None,
    method: str | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    selection: SelectionConfig | None = None,
    validation: ImageSource | None = None,
    validation_labels: str | Path | None = None,
    validation_classes: str | LabelSpace | None = None,
    source_validation: ImageSource | None = None,
    source_validation_labels: str | Path | None = None,
    source_validation_classes: str | LabelSpace | None = None,
    out_dir: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    compile: bool = False,
    skip_bad: bool = False,
    **model_options: Any,
) -> Run:
    """Adapt a model to unlabeled target images.

    Args:
        model: as ``load_model`` takes it; a network of the caller's is copied and stays as it is.
        images: a folder, a video file, ``name:where``, or arrays (H, W, 3) uint8 RGB; None for the
            packaged ones.
        windows: cut target images, and score ``validation``, in windows of the input size; None to
            resize images to it, as those of ``source_validation`` always are.
        method: ``multiview``, ``sfda``, ``bn``, ``tent``, ``maxsquare`` or ``selftrain``; None for
            the recipe's, or ``multiview``.
        recipe: a recipe's name or TOML file; None for the method's own.
        settings: of the recipe, by name.
        selection: constants of label-free selection.
        validation: labelled images to score before and after; not used for training.
        validation_labels: folder of label images, for a plain folder or video of ``validation``.
        validation_classes: what these labels mean; None for the model's classes.
        source_validation: labelled images of the source domain: what the model forgets there.
        source_validation_labels: as ``validation_labels``.
        source_validation_classes: as ``validation_classes``.
        out_dir: the run directory, new; None for one in ``runs/``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: compute precision: ``fp32``, ``bf16``, or ``fp16`` on a CUDA GPU.
        compile: use ``torch.compile``.
        skip_bad: leave damaged images out.
        **model_options: of ``load_model``, such as ``class_names`` and ``size_hw``.

    Raises:
        SfdaEdgeError: something that the caller has to change; nothing is lost.
    """
    loaded = load_model(model, **model_options)
    if isinstance(model, LoadedModel | Run):
        loaded = replace(loaded, network=copy.deepcopy(loaded.network))
    return run_adaptation(
        AdaptRequest(
            model=loaded,
            images=images,
            windows=windows,
            method=method,
            recipe=recipe,
            overrides=tuple(f"{k}={toml_value(v)}" for k, v in (settings or {}).items()),
            selection=selection or SelectionConfig(),
            validation=optional_validation(validation, validation_labels, validation_classes),
            source_validation=optional_validation(
                source_validation,
                source_validation_labels,
                source_validation_classes,
                name="source_validation",
            ),
            out_dir=None if out_dir is None else Path(out_dir),
            device=device,
            precision=precision,
            compiled=compile,
            skip_bad=skip_bad,
        )
    )


def evaluate(
    model: ModelSource = None,
    images: ImageSource | None = None,
    *,
    labels: str | Path | None = None,
    label_classes: str | LabelSpace | None = None,
    out_dir: str | Path | None = None,
    windows: SlidingWindows | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    **model_options: Any,
) -> Evaluation:
    """Score a model on labelled images.

    Args:
        model: as ``load_model`` takes it.
        images: labelled; None for the packaged clip.
        labels: folder of label images (H, W) with the images' names, for a plain folder or video.
        label_classes: what the labels mean; None for the model's classes.
        out_dir: write ``evaluation.json`` and pictures there; None for no files.
        windows: cut large images into windows of the input size; None to resize them to it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        skip_bad: leave damaged samples out.
        **model_options: of ``load_model``, such as ``class_names`` and ``size_hw``.

    Returns:
        mIoU as ``.miou`` in [0, 1], IoU of each class and pixel accuracy as ``.scores``.

    Raises:
        SfdaEdgeError: something that the caller has to change.
    """
    loaded = load_model(model, **model_options)
    warn_of_other_windows(loaded, windows)
    found = open_images(PACKAGED_CLIP if images is None else images, _optional_path(labels))
    if label_classes is not None:
        found = with_label_classes(found, label_classes)
    sheet = SheetCollector(loaded.spec.output_space, len(found))
    if out_dir is not None:
        make_folder(Path(out_dir))
    network = copy.deepcopy(loaded.network)  # a predictor moves it to its device
    evaluation = evaluate_predictor(
        Predictor(network, loaded.spec, choose_device(device), windows=windows),
        found,
        skip_bad=skip_bad,
        progress=progress_bar("evaluate", len(found)),
        observer=sheet,
    )
    if out_dir is not None:
        about = {"weights": str(loaded.path or loaded.spec.architecture), "images": found.title}
        if windows is not None:
            about["windows"] = windows.text()
        write_evaluation(Path(out_dir), evaluation, sheet, about)
    return evaluation


PACKAGED_CLIP = "streetsynth:clip"


def _optional_path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def train(
    recipe: str,
    images: ImageSource,
    *,
    labels: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    initial_weights: str | Path | None = None,
    weights_key: str | None = None,
    validation: ImageSource | None = None,
    validation_labels: str | Path | None = None,
    validation_classes: str | LabelSpace | None = None,
    out_dir: str | Path | None = None,
    device: str = "auto",
    skip_bad: bool = False,
) -> TrainedModel:
    """Train a source model on labelled images.

    Args:
        recipe: a recipe's name or TOML file.
        images: labelled.
        labels: folder of label images, for a plain folder.
        settings: of the recipe, by name.
        initial_weights: a file that training begins with, such as torchvision's ResNet-50; None
            for what the recipe says.
        weights_key: which state dict of it to take where it holds several.
        validation: labelled images to score at the end.
        validation_labels: folder of label images, for a plain folder or video of ``validation``.
        validation_classes: what these labels mean; None for the recipe's classes.
        out_dir: the run directory, new; None for one in ``runs/``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        skip_bad: leave damaged samples out.

    Raises:
        SfdaEdgeError: something that the caller has to change.
    """
    return run_training(
        TrainRequest(
            recipe=recipe,
            images=images,
            labels_dir=_optional_path(labels),
            validation=optional_validation(validation, validation_labels, validation_classes),
            initial_weights=_optional_path(initial_weights),
            weights_key=weights_key,
            overrides=tuple(f"{k}={toml_value(v)}" for k, v in (settings or {}).items()),
            out_dir=_optional_path(out_dir),
            device=device,
            skip_bad=skip_bad,
        )
    )
