"""Prove that a backend gives the labels that its bundle was exported with."""

from __future__ import annotations

import numpy as np

from runtime.backends.base import Backend
from runtime.bundle.golden import Golden
from runtime.errors import BackendUnavailable


def golden_agreement(backend: Backend, golden: Golden) -> float:
    """The share of the golden frame's labels that a backend gives as they were exported.

    Raises:
        BackendUnavailable: it is below the bundle's threshold, or the answer has another shape.
    """
    found = backend.infer(golden.image)
    if found.shape != golden.label_map.shape or found.dtype != np.uint8:
        raise BackendUnavailable(
            f"{backend.name} gives a label map {found.shape} of {found.dtype}, exported was "
            f"{golden.label_map.shape} of uint8"
        )
    agreement = float((found == golden.label_map).mean())
    if agreement < golden.min_agreement:
        raise BackendUnavailable(
            f"{backend.name} ({backend.library}, {backend.provider}, {backend.precision}) gives "
            f"{100 * agreement:.2f} % of the golden frame's labels as exported, at least "
            f"{100 * golden.min_agreement:.2f} % are needed: it computes something else. Choose "
            "another --backend, or export the bundle for this one"
        )
    return agreement


# What a backend may compute a bundle's precision in: the same, or more exactly.
_EXACT_ENOUGH = {
    "fp32": ("fp32", "engine"),
    "fp16": ("fp16", "fp32", "engine"),
    "int8": ("int8", "fp16", "fp32", "engine"),
}


def require_precision(backend: Backend, precision: str) -> None:
    """A backend must not compute less exactly than the bundle that it runs.

    Raises:
        BackendUnavailable: it does.
    """
    if backend.precision not in _EXACT_ENOUGH[precision]:
        raise BackendUnavailable(
            f"{backend.name} ({backend.library}, {backend.provider}) computes in "
            f"{backend.precision}, the bundle is {precision}"
        )
