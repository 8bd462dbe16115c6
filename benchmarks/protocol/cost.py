"""What a protocol needs before it is begun: images, time, memory, disk."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.protocol.file import Protocol
from benchmarks.protocol.source import source_recipe
from sfda_edge.data.datasets import DATASETS
from sfda_edge.data.datasets.opening import find_split
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.methods import load_method_recipe
from sfda_edge.models import ModelSpec, architecture, build_model
from sfda_edge.models.inference import enlarged, main_output
from sfda_edge.runs.device import choose_device
from sfda_edge.training.run import fill_from_file

# How many steps of a method take the time of one supervised step, as measured.
SPEED_FILE = Path(__file__).parents[1] / "results" / "adaptation-speed.json"
_COPIES = 6  # of the weights on disk: source, adapted, two checkpoints with the optimizers' moments


def cost_text(
    protocol: Protocol, specs: dict[str, str], args: argparse.Namespace
) -> tuple[str, bool]:
    """Lines for people, and whether all data is there.

    The figures are rough: from the training step of one image on this device. Reading every image
    once, before the first step, comes on top.

    Raises:
        CheckpointError: the initial weights are not of the network.
    """
    there = {split: _num_images(spec) for split, spec in specs.items()}
    lines = [
        f"{split:<28} {number} of {_official(split)} images, {specs[split]}"
        for split, number in there.items()
    ]
    device, train = choose_device(args.device), source_recipe(protocol, tuple(args.train_set))
    if args.weights is None:
        model, spec = _network(protocol, train.input_hw)
        if args.initial_weights is not None:
            fill_from_file(model, spec, args.initial_weights, args.weights_key)
        seconds, _ = _one_image(model, spec, device)
        source_s = _duration(seconds * train.steps * train.batch_size)
        lines.append(f"source model  {source_s}: {train.steps} x {train.batch_size} images")
    model, spec = _network(protocol, args.size or protocol.model.input_hw)
    seconds, memory_bytes = _one_image(model, spec, device)
    method, recipe = load_method_recipe(
        None if args.method else protocol.recipe_name, args.method, tuple(args.overrides)
    )
    steps, batch = getattr(recipe, "steps", 0), getattr(recipe, "batch_size", 0)
    adapt_s = seconds * steps * batch / _relative_speed(method)
    disk = _disk_bytes(model, spec, method, there[protocol.target])
    lines += [
        f"{method:<13} {_duration(adapt_s)}: {steps} x {batch} images",
        f"memory        at most {memory_bytes / 1e9:.1f} GB with one image, torch included; "
        "features grow with the batch",
        f"disk          {disk / 1e9:.1f} GB"
        + ", times the windows of an image" * bool(args.windows),
    ]
    return "\n".join(lines), all(there[split] >= _official(split) for split in there)


def _num_images(spec: str) -> int:
    name, _, where = spec.partition(":")
    try:
        found = find_split(DATASETS[name], where)
    except DataError:
        return 0
    return len(found.samples) + len(found.left_out)


def _official(split: str) -> int:
    name, _, part = split.partition("/")
    return DATASETS[name].splits[part].num_images or 0


def _network(protocol: Protocol, input_hw: tuple[int, int] | None) -> tuple[nn.Module, ModelSpec]:
    wanted = protocol.model
    assert wanted.name
    assert wanted.label_space
    assert input_hw
    found = architecture(wanted.name)
    spec = ModelSpec(
        wanted.name,
        label_space(wanted.label_space),
        input_hw,
        mean=found.mean,
        std=found.std,
        bgr=found.bgr,
    )
    return build_model(spec), spec


def _one_image(model: nn.Module, spec: ModelSpec, device: torch.device) -> tuple[float, int]:
    """Seconds and bytes of a training step, the second of two; BatchNorm as in inference."""
    model = model.to(device).eval()
    image = torch.zeros(1, spec.num_channels, *spec.input_hw, device=device)
    seconds = 0.0
    for _ in range(2):
        began_s = time.perf_counter()
        enlarged(main_output(model(image)), spec.input_hw).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began_s
    if device.type == "cuda":
        return seconds, torch.cuda.max_memory_allocated(device)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _relative_speed(method: str) -> float:
    rows: dict[str, Any] = json.loads(SPEED_FILE.read_text())["rows"]
    return float(rows.get(method, rows["supervised"])["of_supervised"])


def _disk_bytes(model: nn.Module, spec: ModelSpec, method: str, num_images: int) -> int:
    """Weights, and the labels of methods that keep them: a byte a class at half the size."""
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    height, width = spec.input_hw
    labels = num_images * spec.label_space.num_classes * (height // 2) * (width // 2)
    return _COPIES * weights + (labels if method in ("multiview", "selftrain") else 0)


def _duration(seconds: float) -> str:
    return f"about {seconds / 3600:.1f} h" if seconds >= 3600 else f"about {seconds / 60:.0f} min"
