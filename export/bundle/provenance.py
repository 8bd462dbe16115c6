"""Where a bundle came from: the links of its chain, from source weights to graph."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import onnx
from torch import nn

from export.errors import ExportError
from runtime.bundle.manifest import file_sha256
from sfda_edge.models.checkpoint import load_weights
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.spec import PYTHON
from sfda_edge.runs.directory import HOME_FILE, RUN_FILE, made_weights, read_run

logger = logging.getLogger(__name__)


def recorded_run(source: LoadedModel) -> dict[str, Any]:
    """The record of the run beside the weights; nothing when it made other weights."""
    run = {} if source.path is None else read_run(source.path.parent)
    return run if source.sha256 in made_weights(run.get("result", {})).values() else {}


def for_source_domain(source: LoadedModel, run: dict[str, Any]) -> bool:
    """Whether the weights are those of ``HOME_FILE``, by their hash: files are renamed."""
    return made_weights(run.get("result", {})).get(HOME_FILE) == source.sha256


def provenance(source: LoadedModel, run: dict[str, Any]) -> dict[str, Any]:
    """Plain values: names and hashes, no paths of the machine that exported.

    Args:
        source: the model that is exported.
        run: that made it, or nothing.

    Raises:
        ExportError: the run's record lacks something.
    """
    try:
        return _chain(source, run)
    except (KeyError, TypeError, AttributeError) as error:
        raise ExportError(
            f"{RUN_FILE} beside {source.path} is damaged or of an older version ({error} is "
            "missing): adapt again, or export a copy of the weights without it"
        ) from None


def _chain(source: LoadedModel, run: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "architecture": source.spec.architecture,
        "weights": source.path.name if source.path else "given in Python",
        "weights_sha256": source.sha256,
    }
    inputs, result = run.get("inputs", {}), run.get("result", {})
    if "method" not in inputs:
        return facts
    facts |= {
        "source_weights": Path(inputs["weights"]).name,
        "source_weights_sha256": inputs["weights_sha256"],
        "method": inputs["method"],
        "recipe": inputs["recipe"],
        "recipe_sha256": settings_sha256(inputs["recipe"]),
        "target_images": images_name(inputs["images"]),
        "target_num_images": result["num_images"],
        "target_sha256": inputs["target_sha256"],
        **({"windows": inputs["windows"]} if inputs.get("windows") else {}),
        "returned": result["returned"],
        **({"keep": keep} if (keep := inputs.get("selection", {}).get("keep")) else {}),
    }
    check = result.get("batchnorm_check")
    if result["returned"] == "source" and check is not None and not check["usable"]:
        facts["statistics"] = "repaired"
    # Scores are of what the run knew: another size or class map would have others.
    same = inputs["spec"] == json.loads(json.dumps(msgspec.to_builtins(source.spec)))
    if for_source_domain(source, run):  # the other scores are of the adapted statistics
        facts["statistics"] = "source"
        own = result.get("source_validation_own_statistics")
        if same and own is not None:
            facts |= _run_scores("home_scores", [result["source_validation"][0], own])
        return facts
    facts["label_free_score"] = {
        "source": result["source"]["score"],
        "adapted": result["best"]["score"],
    }
    if same:
        for name, key in (("run_scores", "validation"), ("home_scores", "source_validation")):
            facts |= _run_scores(name, result.get(key, []))
    return facts


def _run_scores(name: str, validation: list[dict[str, Any]]) -> dict[str, Any]:
    """Percent of mIoU of source and adapted model, where the run was given labelled images."""
    mious = [scores["miou"] for scores in validation]
    if not mious or None in mious:
        return {}
    before, adapted = (round(100 * miou, 2) for miou in mious)
    num_images = validation[0]["num_images"]
    return {name: {"num_images": num_images, "before": before, "model": adapted}}


def images_name(images: str) -> str:
    """The last part of where images come from, and the one before it of ``FOLDER/**``."""
    path = Path(images)
    return path.name if path.name != "**" else f"{path.parent.name}/**"


def settings_sha256(settings: dict[str, Any]) -> str:
    """Of plain values by name, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def graph_sha256(graph: onnx.ModelProto) -> str:
    """Of what a graph computes: all of it but its metadata, which can therefore hold this hash."""
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def unadapted(source: LoadedModel, run: dict[str, Any]) -> nn.Module | None:
    """The network as it was before the run, for comparison.

    None where nothing was adapted and, with a warning, where its weights are missing.
    """
    inputs = run.get("inputs", {})
    if "weights" not in inputs or str(inputs["weights"]).startswith(PYTHON):
        return None
    path = Path(inputs["weights"])
    if not path.is_file() or file_sha256(path) != inputs["weights_sha256"]:
        logger.warning("%s is missing or was changed: the card cannot show its predictions", path)
        return None
    network = copy.deepcopy(source.network)
    load_weights(network, path, source.spec.architecture, key=inputs.get("weights_key"))
    return network.eval()
