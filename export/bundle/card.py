"""The model card: a bundle's facts for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from export.precision.int8 import timing_text
from sfda_edge.data.windows import recorded_windows
from sfda_edge.models import ModelSpec

_OUTPUTS = {
    "label_map": "uint8 class indices, ({batch}, {height}, {width})",
    "confidence": "uint8, 255 times the probability of the label, ({batch}, {height}, {width})",
    "health": "float32, drift figures that change when the scene does; `health_layout` in "
    "`manifest.json` names its parts",
}
# Facts with a sentence or a section of their own.
_TOLD = {
    "parity",
    "parity_rounded",
    "single_precision",
    "coarse_labels",
    "int8",
    "scores",
    "run_scores",
    "home_scores",
    "label_free_score",
    "compared_on",
}


def model_card(
    spec: ModelSpec,
    precision: str,
    *,
    outputs: Sequence[str],
    batch: str,
    provenance: dict[str, Any],
    picture: str | None,
) -> str:
    """Markdown with inputs and outputs, origin, and how the bundle was checked."""
    height, width = spec.input_hw
    lines = [
        f"# {spec.architecture}, {precision}, {width}x{height}",
        "",
        f"Semantic segmentation into {spec.output_space.num_classes} classes: "
        f"{', '.join(spec.output_space.names)}.",
        "",
        f"- Input `image`: uint8 RGB, ({batch}, {height}, {width}, 3). Resize bilinearly; nothing "
        "else.",
    ]
    for name in outputs:
        what = _OUTPUTS[name].format(batch=batch, height=height, width=width)
        lines.append(f"- Output `{name}`: {what}.")
    lines += ["", "## Before and after", "", *_change(provenance, picture)]
    lines += ["", "## How it was checked", "", *_proof(provenance)]
    lines += ["", "## Where it came from", ""]
    lines += [f"- {key}: {_text(value)}" for key, value in provenance.items() if key not in _TOLD]
    lines += [
        "",
        "## What to know",
        "",
        f"- {_training(provenance)} Only labels of your own images show its accuracy there: "
        "`sfda-edge evaluate`.",
    ]
    if "confidence" not in outputs:
        lines.append(
            "- It predicts a class for every pixel, without a confidence (`--confidence`)."
        )
    return "\n".join(lines) + "\n"


def _change(provenance: dict[str, Any], picture: str | None) -> list[str]:
    """What the adaptation and the export changed, in numbers and a picture."""
    scores = provenance.get("scores", provenance.get("run_scores"))
    label_free = provenance.get("label_free_score")
    lines = ["| | before the adaptation | the model | this file |", "|---|---|---|---|"]
    if scores is not None:
        values = [scores["before"], scores["model"], scores.get("shipped")]
        texts = ["–" if value is None else f"{value:.2f}" for value in values]
        lines.append(f"| mIoU, {scores['num_images']} labelled images | {' | '.join(texts)} |")
    if home := provenance.get("home_scores"):
        lines.append(
            f"| mIoU, {home['num_images']} labelled images of the source domain | "
            f"{home['before']:.2f} | {home['model']:.2f} | – |"
        )
    if label_free is not None:
        source, adapted = label_free["source"], label_free["adapted"]
        lines.append(f"| label-free score | {source:.3f} | {adapted:.3f} | – |")
    table = [*lines, ""] if len(lines) > 2 else []
    if scores is None:
        table += ["Not scored: no labelled images were given (`--validation`).", ""]
    shown = f"![frames and predictions]({picture})"
    return [*table, shown if picture else "Without pictures: `--no-pictures`."]


def _proof(provenance: dict[str, Any]) -> list[str]:
    parity, compared = provenance["parity"], _compared_on(provenance)
    lines = [
        f"- {_agreement(parity)} with the torch model on {parity['num_images']} {compared}, "
        f"the file run by ONNX Runtime (gate: {100 * parity['gate']['label_agreement']:g} %)."
    ]
    if "parity_rounded" in provenance:
        singles = len(provenance.get("single_precision", ()))
        lines.append(
            f"- {_agreement(provenance['parity_rounded'])} with every intermediate value "
            f"rounded to half precision, as on a GPU; {singles} nodes compute in single precision."
        )
    if "int8" in provenance:
        facts = provenance["int8"]
        if facts["qat_steps"]:
            lines.append(
                f"- For int8 the network was fine-tuned for {facts['qat_steps']} steps to match "
                f"the float model on {compared}."
            )
        lines.append(
            f"- {facts['num_quantised']} nodes compute in int8, calibrated by {facts['rule']}; "
            f"{len(facts['kept'])} that lost accuracy stay in float. In ONNX Runtime on the CPU "
            f"that exported it, {timing_text(facts)}."
        )
    if "coarse_labels" in provenance:
        cost = provenance["coarse_labels"]
        lines.append(
            f"- Labels are taken on the network's own grid: {_agreement(cost)} with labels at full "
            f"size, {cost['coarse_ms']:.1f} ms instead of {cost['full_ms']:.1f} ms where it was "
            "exported."
        )
    return lines


def _compared_on(provenance: dict[str, Any]) -> str:
    """Which images, where that is known."""
    if "compared_on" not in provenance:
        return "images"
    of = provenance["compared_on"]
    cut = f", windows {of['windows']}" if "windows" in of else ""
    return f"images ({of['images']}{cut})"


def _agreement(parity: dict[str, Any]) -> str:
    return f"{100 * parity['label_agreement']:.3f} % label agreement"


def _training(provenance: dict[str, Any]) -> str:
    if provenance.get("returned") == "source":
        asked = provenance.get("keep") == "source"
        why = "as asked" if asked else "since no checkpoint scored higher without labels"
        repaired = provenance.get("statistics") == "repaired"
        what = "with BatchNorm statistics of the target" if repaired else "unchanged"
        return f"It is the source model, {what}: method {provenance['method']} returned it, {why}."
    if "method" in provenance:
        windows = recorded_windows(provenance)
        cut = (
            ""
            if windows is None
            else (
                f" It was adapted to windows {windows.text()}: whole frames that are resized show "
                "smaller objects."
            )
        )
        return f"It was adapted without labels, by method {provenance['method']}.{cut}"
    return "It is a source model, not adapted to the place where it will run."


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    return str(value)
