"""The stages of a protocol: source model, adaptation, label maps for a server."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.protocol.file import Protocol
from benchmarks.protocol.server_export import write_server_labels
from benchmarks.protocol.source import source_settings
from runtime.bundle.labels import LabelSpace
from runtime.bundle.manifest import file_sha256
from runtime.files import read_text
from sfda_edge.adaptation.request import AdaptRequest
from sfda_edge.adaptation.run import run_adaptation
from sfda_edge.cli.options import windows
from sfda_edge.data import recorded_spec
from sfda_edge.data.validation import Validation
from sfda_edge.errors import RecipeError
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models.checkpoint import SPEC_FILE, read_spec
from sfda_edge.models.source_model import ModelRequest, describes_itself, weights_file_of
from sfda_edge.recipes.recipe import toml_value
from sfda_edge.runs.directory import RUN_FILE, read_run
from sfda_edge.runs.distributed import leave_group
from sfda_edge.runs.files import write_text
from sfda_edge.training.run import TrainRequest, run_training

logger = logging.getLogger(__name__)
SOURCE_DIR, TRAIN_RECIPE = "source", "source.toml"


def run_protocol(
    protocol: Protocol, specs: dict[str, str], args: argparse.Namespace, out_dir: Path
) -> dict[str, Any] | None:
    """Run what is left of a protocol.

    Args:
        protocol: which.
        specs: where each split is.
        args: of the command line.
        out_dir: holds a folder for each stage.

    Returns:
        What the adaptation's run directory records; None in all processes but the first, and where
        nothing but the source model is wanted.

    Raises:
        RecipeError: several processes were started before there is a source model.
    """
    model = _source_model(protocol, specs, args, out_dir)
    if args.source_only:
        return None
    adapted, cut = out_dir / (args.method or "sfda"), windows(args)
    asked = {
        "source": _source_sha256(args, out_dir),
        "weights_key": None if args.weights is None else args.weights_key,
        "images": recorded_spec(specs[protocol.target]),
        "scored": recorded_spec(specs[protocol.scored]),
        "size": args.size,
        "windows": msgspec.to_builtins(cut),
        "set": args.overrides,
        "precision": args.precision,
        "skip_bad": args.skip_bad,
    }
    _require_same(adapted, asked)
    if _state(adapted) != "finished":
        run_adaptation(
            AdaptRequest(
                model=model,
                images=specs[protocol.target],
                windows=cut,
                method=args.method,
                recipe=None if args.method else protocol.recipe_name,
                overrides=tuple(args.overrides),
                validation=Validation(specs[protocol.scored]),
                out_dir=adapted,
                device=args.device,
                precision=args.precision,
                resume=_state(adapted) == "running",
                skip_bad=args.skip_bad,
            )
        )
    leave_group()
    if not _is_first():
        return None
    if args.test_export and protocol.test is not None:
        test_dir = adapted.with_name(f"{adapted.name}-test")
        write_server_labels(adapted, specs[protocol.test], test_dir, args)
    run = read_run(adapted)
    return {**run["result"], "inputs": run["inputs"]}


def _is_first() -> bool:
    """Of the processes that torchrun started; a finished protocol starts no process group."""
    return int(os.environ.get("RANK", "0")) == 0


def _require_same(folder: Path, asked: dict[str, Any]) -> None:
    """Let a stage go on, or be taken as it is, for the arguments that it was begun with alone.

    Raises:
        RecipeError: it was begun with others, or they are not recorded.
    """
    path = folder.with_name(f"{folder.name}.asked.json")
    asked = json.loads(json.dumps(asked))
    if not _state(folder):
        if _is_first():
            write_text(path, json.dumps(asked, indent=1) + "\n")
        return
    if not path.exists():
        raise RecipeError(
            f"{path.name}, which says what {folder.name} was made with, is not there; choose "
            f"another --out, or remove {folder}"
        )
    try:
        before = json.loads(read_text(path))
    except ValueError:
        before = {}
    for key in {"images", "scored"} & before.keys():  # earlier versions wrote them as typed
        before[key] = recorded_spec(str(before[key]))
    if different := [key for key in asked if before.get(key) != asked[key]]:
        raise RecipeError(
            f"{folder} was made with another {', '.join(different)}; choose another --out, or "
            f"remove {folder.name} and {path.name}"
        )


def _state(folder: Path) -> str:
    return str(read_run(folder).get("state", "")) if (folder / RUN_FILE).exists() else ""


def _source_model(
    protocol: Protocol, specs: dict[str, str], args: argparse.Namespace, out_dir: Path
) -> ModelRequest:
    """The weights that were given, or the model that the first stage trains."""
    wanted = protocol.model
    size_hw = args.size or wanted.input_hw
    if args.weights is not None and describes_itself(args.weights):
        _require_classes(args.weights, LABEL_SPACES[wanted.label_space or ""])
        return ModelRequest(args.weights, size_hw=size_hw)
    if args.weights is not None:
        return ModelRequest(
            args.weights,
            architecture=wanted.name,
            label_space=wanted.label_space,
            size_hw=size_hw,
            weights_key=args.weights_key,
        )
    folder = out_dir / SOURCE_DIR
    asked = {"images": recorded_spec(specs[protocol.source]), "train_set": args.train_set}
    begun = args.initial_weights
    if begun is not None or _state(folder) != "finished":  # which need not be named again
        asked["initial_weights"] = None if begun is None else file_sha256(begun)
        asked["weights_key"] = args.weights_key
    _require_same(folder, asked)
    if _state(folder) != "finished":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RecipeError(
                "several processes adapt, but one trains the source model: call it with "
                "--source-only first, without torchrun"
            )
        _train_source(protocol, specs, args, out_dir)
    return ModelRequest(folder, size_hw=size_hw)


def _require_classes(weights: Path, reported: LabelSpace) -> None:
    """See that a model that describes itself predicts what the row reports, in its order.

    Raises:
        RecipeError: it predicts other classes.
    """
    folder = weights if weights.is_dir() else weights.parent
    found = read_spec(folder / SPEC_FILE).output_space.names
    if found != reported.names:
        raise RecipeError(
            f"{weights} predicts {len(found)} classes ({', '.join(found)}) and this row reports "
            f"{len(reported.names)} ({', '.join(reported.names)}); choose another --weights"
        )


def _source_sha256(args: argparse.Namespace, out_dir: Path) -> str:
    """Of the weights that were given or trained here: a file may be another by now."""
    return file_sha256(weights_file_of(args.weights or out_dir / SOURCE_DIR))


def _train_source(
    protocol: Protocol, specs: dict[str, str], args: argparse.Namespace, out_dir: Path
) -> None:
    recipe = out_dir / TRAIN_RECIPE
    lines = (f"{key} = {toml_value(value)}\n" for key, value in source_settings(protocol).items())
    write_text(recipe, "".join(lines))
    run_training(
        TrainRequest(
            recipe=str(recipe),
            images=specs[protocol.source],
            initial_weights=args.initial_weights,
            weights_key=args.weights_key,
            overrides=tuple(args.train_set),
            out_dir=out_dir / SOURCE_DIR,
            device=args.device,
            resume=_state(out_dir / SOURCE_DIR) == "running",
            skip_bad=args.skip_bad,
        )
    )
