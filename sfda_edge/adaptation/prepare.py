"""prepare: everything that a run needs, read and checked before anything is written."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfda_edge.adaptation.request import AdaptRequest
from sfda_edge.data import ImageSet, ImageSource, open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.data.validation import Validation
from sfda_edge.data.windows import windows_of
from sfda_edge.errors import RecipeError
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.methods import load_method_recipe
from sfda_edge.models import MODELS, returns_probabilities
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.source_model import ModelRequest, describes_itself, load_source
from sfda_edge.recipes.published import RecipeModel, recipe_model
from sfda_edge.runs.directory import default_run_dir
from sfda_edge.runs.fabric import open_fabric, usable_device
from sfda_edge.runs.progress import progress_bar

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)
PACKAGED_IMAGES = "streetsynth:target"


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """What a request has become before anything is written."""

    request: AdaptRequest
    method: str
    recipe: Any
    source: LoadedModel
    fabric: Fabric
    out_dir: Path
    image_source: ImageSource
    images: ImageSet
    target: TargetImages
    validation: ImageSet | None
    source_validation: ImageSet | None


def prepare(request: AdaptRequest) -> Prepared:
    """Read and check everything; nothing is written."""
    method, recipe = load_method_recipe(request.recipe, request.method, request.overrides)
    published = recipe_model(request.recipe or method)
    source = request.model
    if isinstance(source, ModelRequest):
        source = load_source(completed(source, published), "--weights FILE for another")
    if request.precision != "fp32" and returns_probabilities(source.network):
        raise RecipeError(
            f"{source.spec.architecture} returns probabilities, which {request.precision} rounds "
            "to 0 and 1; use --precision fp32, or leave out its softmax or sigmoid"
        )
    usable_device(request.device, request.precision)  # said before Fabric is imported, as images
    image_source = PACKAGED_IMAGES if request.images is None else request.images
    images = open_images(image_source)
    fabric = open_fabric(request.device, request.precision)
    _log_defaults(request)
    warn_of_other_model(source, published)
    out_dir = fabric.broadcast(request.out_dir or default_run_dir(method))
    logger.info("run: %s (--out DIR for another); device: %s (--device)", out_dir, fabric.device)
    if request.tensorboard:
        importlib.import_module("tensorboard")
    validation, source_validation = (
        _checked(labelled, source, skip_bad=request.skip_bad)
        for labelled in (request.validation, request.source_validation)
    )
    bar = progress_bar("measure images", len(images))
    shown = windows_of(images, request.windows, source.spec.input_hw, progress=bar)
    bar = progress_bar("read images", len(shown))
    return Prepared(
        request=request,
        method=method,
        recipe=recipe,
        source=source,
        fabric=fabric,
        out_dir=out_dir,
        image_source=image_source,
        images=images,
        target=TargetImages(shown, source.spec.input_hw, skip_bad=request.skip_bad, progress=bar),
        validation=validation,
        source_validation=source_validation,
    )


def completed(request: ModelRequest, published: RecipeModel) -> ModelRequest:
    """The request, with what the recipe has about a model that has no ``model.json``.

    Raises:
        RecipeError: the recipe names code or a file, which only the user may name.
    """
    if describes_itself(request.weights) or request.network is not None:
        return request
    if request.architecture is None and published.name not in (None, *MODELS):
        raise RecipeError(
            f"the recipe names the network {published.name}, which is not one of ours; if you "
            f"trust it, name it with --model {published.name}"
        )
    if request.label_space is None and published.label_space not in (None, *LABEL_SPACES):
        raise RecipeError(
            f"the recipe names the label space {published.label_space}, which is not one of ours; "
            "give --label-space"
        )
    return replace(
        request,
        architecture=request.architecture or published.name,
        label_space=request.label_space or published.label_space,
        size_hw=request.size_hw or published.input_hw,
    )


def warn_of_other_model(source: LoadedModel, published: RecipeModel) -> None:
    """Warn where a recipe was published for another network than the one that is adapted."""
    if published.name not in (None, source.spec.architecture):
        logger.warning(
            "the recipe is for %s, these weights are of %s",
            published.name,
            source.spec.architecture,
        )


def _log_defaults(request: AdaptRequest) -> None:
    """Each default in a line with the flag that changes it."""
    if request.method is None and request.recipe is None:
        logger.info("method: multiview (--method NAME, --recipe NAME|FILE, --set KEY=VALUE)")
    if request.images is None:
        logger.info("images: the packaged StreetSynth dusk frames (--images for yours)")


def _checked(
    labelled: Validation | None, source: LoadedModel, *, skip_bad: bool
) -> ImageSet | None:
    """Validation images: finds out now what would otherwise fail after the run.

    Raises:
        DataError: they are not there, not labelled, damaged, or of other classes.
    """
    if labelled is None:
        return None
    bar = progress_bar("check the validation images", None)
    return labelled.open_checked(source.spec.output_space, skip_bad=skip_bad, progress=bar)
