"""Bundles of a run in every asked form, their scores on labelled images, and their times."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

import export
from benchmarks.measuring.closed_loop import Effort, in_a_circle, measure_in_turn
from export.api import Bundle
from export.errors import ExportError
from runtime.backends import Backend, open_backend
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.confusion import ConfusionMatrix
from runtime.errors import StreamError
from runtime.images import resize_image, resize_label_map
from sfda_edge.data.loading import read_all
from sfda_edge.data.validation import Validation
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.runs.progress import progress_bar

FRAMES = 8


@dataclass(frozen=True)
class Choices:
    """What is combined with what.

    Attributes:
        sizes_hw: input sizes; None is the run's own.
        precisions: fp32, fp16, int8.
        argmax: full, coarse.
        backends: names of the runtime's.
        num_threads: of one inference.
    """

    sizes_hw: tuple[tuple[int, int] | None, ...]
    precisions: tuple[str, ...]
    argmax: tuple[str, ...]
    backends: tuple[str, ...]
    num_threads: int


@dataclass(frozen=True, eq=False)
class Variant:
    """One bundle.

    Attributes:
        run: name of the run; ``packaged``.
        network, size, precision, argmax: what it is.
        bundle_dir: where it is; None if it could not be exported.
        figures: of the file: bytes, nodes, agreement with torch; or why there is none.
    """

    run: str
    network: str
    size: str
    precision: str
    argmax: str
    bundle_dir: Path | None
    figures: dict[str, Any]


def export_variants(runs: Iterable[Path | None], choices: Choices, work: Path) -> list[Variant]:
    """Export each form of each run; None is the packaged model."""
    forms = list(itertools.product(choices.sizes_hw, choices.precisions, choices.argmax))
    return [
        _exported(run, form, work / f"{number:02d}-{index:02d}")
        for number, run in enumerate(runs)
        for index, form in enumerate(forms)
    ]


def _exported(
    run: Path | None, form: tuple[tuple[int, int] | None, str, str], out_dir: Path
) -> Variant:
    size_hw, precision, argmax = form
    source = load_source(ModelRequest(run, size_hw=size_hw))
    height, width = source.spec.input_hw
    name = "packaged" if run is None else run.resolve().name
    facts = (name, source.spec.architecture, f"{width}x{height}", precision, argmax)
    print(f"exporting {', '.join(facts)}", file=sys.stderr)
    images = "streetsynth:target" if run is None else None
    options: dict[str, Any] = {"precision": precision, "argmax": argmax, "pictures": False}
    try:
        bundle = export.export(source, images=images, out_dir=out_dir, **options)
    except ExportError as error:
        return Variant(*facts, bundle_dir=None, figures={"did_not_run": str(error)})
    return Variant(*facts, bundle_dir=out_dir, figures=_file_figures(bundle))


def _file_figures(bundle: Bundle) -> dict[str, Any]:
    result = bundle.result
    rounding, int8 = result.rounding, result.int8
    return {
        "bytes": result.size_bytes,
        "nodes": result.num_nodes,
        "agreement_with_torch": round(result.parity.label_agreement, 6),
        "agreement_rounded": round(rounding.label_agreement, 6) if rounding else None,
        "int8": int8.record() if int8 else None,
    }


def measure_variants(
    variants: Iterable[Variant], choices: Choices, validation: Validation, effort: Effort
) -> Iterator[tuple[Variant, str, dict[str, Any]]]:
    """Score and time each bundle on each backend; yields variant, backend and figures.

    All are timed in turn, in one process, on the same frames.
    """
    found: list[tuple[Variant, str, dict[str, Any]]] = []
    calls: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        for variant, name in itertools.product(variants, choices.backends):
            figures = dict(variant.figures)
            found.append((variant, name, figures))
            if variant.bundle_dir is None:
                continue
            manifest = read_manifest(variant.bundle_dir)
            try:
                backend = stack.enter_context(
                    open_backend(name, variant.bundle_dir, manifest, choices.num_threads)
                )
            except StreamError as error:
                reason = str(error).replace(str(variant.bundle_dir), "this bundle")
                figures["did_not_run"] = reason
                continue
            figures |= score(backend, manifest, validation)
            frames = _frames(validation, manifest)
            calls[str(len(found) - 1)] = in_a_circle(backend.infer, frames)
        for key, measured in (measure_in_turn(calls, effort) if calls else {}).items():
            found[int(key)][2].update(measured.record())
    yield from found


def score(backend: Backend, manifest: Manifest, validation: Validation) -> dict[str, Any]:
    """Score label maps, enlarged to the label's own size; mIoU in percent."""
    space = manifest.label_space
    images = validation.open(space)
    confusion = ConfusionMatrix(space.num_classes, space.ignore_index)
    bar = progress_bar(f"score {len(images)} images", len(images))
    for loaded in bar(read_all(images, space)):
        labels = cast(np.ndarray, loaded.label_map)
        label_map = backend.infer(resize_image(loaded.image, manifest.input_hw))
        confusion.update(labels, resize_label_map(label_map, labels.shape))
    return {"miou": round(100 * confusion.scores().miou, 3), "images": len(images)}


def _frames(validation: Validation, manifest: Manifest) -> list[np.ndarray]:
    loaded = itertools.islice(read_all(validation.open(manifest.label_space), None), FRAMES)
    return [np.ascontiguousarray(resize_image(one.image, manifest.input_hw)) for one in loaded]
