"""The model card: a bundle's facts for people."""

from __future__ import annotations

from typing import Any

from sfda_edge.models import ModelSpec


def model_card(spec: ModelSpec, precision: str, provenance: dict[str, Any]) -> str:
    """Markdown with what the model takes and answers, where it came from, and how it was proved."""
    height, width = spec.input_hw
    parity = provenance["parity"]
    lines = [
        f"# {spec.architecture}, {precision}, {width}x{height}",
        "",
        f"Semantic segmentation into {spec.answer_space.num_classes} classes: "
        f"{', '.join(spec.answer_space.names)}.",
        "",
        f"- Input `image`: uint8 RGB, (1, {height}, {width}, 3). Resize bilinearly; nothing else.",
        f"- Output `label_map`: uint8 class indices, (1, {height}, {width}).",
        f"- Agreement with the torch model: {100 * parity['label_agreement']:.3f} % of the pixels "
        f"of {parity['num_images']} target images (gate: {100 * parity['threshold']:.1f} %).",
        "",
        "## Where it came from",
        "",
    ]
    lines += [f"- {key}: {_text(value)}" for key, value in provenance.items() if key != "parity"]
    lines += [
        "",
        "## What to know",
        "",
        f"- {_training(provenance)} How good it is where you use it, only labels of yours "
        "can tell: `sfda-edge evaluate`.",
        "- It answers with a class for every pixel and says nothing of its confidence.",
    ]
    return "\n".join(lines) + "\n"


def _training(provenance: dict[str, Any]) -> str:
    if "method" in provenance:
        return f"It was adapted without labels, by method {provenance['method']}."
    return "It is a source model: nothing was adapted to where it will run."


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    return str(value)
