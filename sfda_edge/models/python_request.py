"""What a caller in Python says of a model, checked, as a ModelRequest."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from runtime.bundle.labels import LabelSpace
from sfda_edge.errors import CheckpointError
from sfda_edge.labels.label_spaces import spread_colours
from sfda_edge.models.source_model import ModelRequest
from sfda_edge.models.spec import Channels


def python_request(
    model: nn.Module | str | Path | None,
    *,
    weights: str | Path | None,
    architecture: str | None,
    class_names: Sequence[str] | None,
    palette: Sequence[tuple[int, int, int]] | None,
    label_space: str | LabelSpace | None,
    size_hw: Sequence[int] | None,
    mean: Channels | None,
    std: Channels | None,
    class_map: str | None,
) -> ModelRequest:
    """The request that the arguments of ``sfda_edge.load_model`` mean.

    Raises:
        CheckpointError: they contradict each other, or one is of another form.
    """
    network = model if isinstance(model, nn.Module) else None
    if weights is not None and model is not None and network is None:
        raise CheckpointError(
            f"two models: {model} and weights={weights}; weights= is for a network in Python, or "
            "stands alone"
        )
    path = weights if network is not None or model is None else model
    if class_names is not None:
        if label_space is not None:
            raise CheckpointError("class_names and label_space both name the classes; give one")
        label_space = _space(class_names, palette)
    elif palette is not None:
        raise CheckpointError("palette has the colours of class_names; give these, too")
    return ModelRequest(
        None if path is None else Path(str(path)),
        network=network,
        architecture=architecture,
        label_space=label_space,
        size_hw=None if size_hw is None else _size(size_hw),
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        class_map=class_map,
    )


def _size(size_hw: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in size_hw)
    except (TypeError, ValueError):
        raise CheckpointError(
            f"size_hw must be a height and a width in whole pixels, found {size_hw!r}"
        ) from None
    return height, width


def _space(names: Sequence[str], palette: Sequence[tuple[int, int, int]] | None) -> LabelSpace:
    if isinstance(names, str):
        raise CheckpointError(f"class_names must be a list of names, found the text {names!r}")
    try:
        return LabelSpace(tuple(names), tuple(palette or spread_colours(len(names))))
    except ValueError as error:
        raise CheckpointError(f"class_names: {error}") from None
