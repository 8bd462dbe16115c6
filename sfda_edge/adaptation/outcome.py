"""What a run has come to: for run.json, and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from sfda_edge.adaptation.loop import Adaptation
from sfda_edge.evaluation import Evaluation
from sfda_edge.selection.checkpoint_selection import CheckpointScore


def outcome_record(
    adaptation: Adaptation,
    *,
    sha256: str,
    share_changed: float,
    scores: tuple[Evaluation, Evaluation] | None,
    source_scores: tuple[Evaluation, Evaluation] | None,
    home_sha256: str | None,
    home_score: Evaluation | None,
) -> dict[str, Any]:
    """The result for ``run.json``."""
    selection = adaptation.selection
    step = selection.best_step
    return {
        "adapted_sha256": sha256,
        **({"home_sha256": home_sha256} if home_sha256 else {}),
        "num_images": len(adaptation.task.target),
        "returned": "source" if step is None else f"step {step}",
        "stopped": adaptation.stopped or None,
        "batchnorm_check": _finite(msgspec.to_builtins(adaptation.statistics_check)),
        "source": _recorded(selection.source),
        "best": _recorded(selection.best),
        "share_of_pixels_changed": round(share_changed, 4),
        "data_wait_s": round(adaptation.data_wait_s, 3),
        "validation": [evaluation.record() for evaluation in scores or ()],
        "source_validation": [evaluation.record() for evaluation in source_scores or ()],
        **({"source_validation_own_statistics": home_score.record()} if home_score else {}),
    }


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for, such as the NaN of damaged weights."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _recorded(found: CheckpointScore) -> dict[str, Any]:
    figures = {
        "score": round(found.score, 4),
        "accuracy": round(found.accuracy, 4),
        "confidence": round(found.confidence, 4),
        "effective_classes": round(found.num_effective_classes, 2),
    }
    return _finite(figures)


_WHY_SOURCE = {
    "best": "no checkpoint was better",
    "last": "no checkpoint predicts finite numbers",
    "source": "as asked with --keep source",
}


def outcome_text(adaptation: Adaptation) -> str:
    """Which model was selected, and why, in one or two sentences."""
    selection, steps = adaptation.selection, adaptation.method.num_steps
    usable = adaptation.statistics_check is None or adaptation.statistics_check.usable
    source = "source model" if usable else "source model with its BatchNorm statistics repaired"
    text = f"The run was stopped: {adaptation.stopped}. " if adaptation.stopped else ""
    keep = adaptation.task.selection.keep
    if selection.best_step is None:
        return (
            f"{text}Selected: the {source}{', unchanged' if usable else ''}; {_WHY_SOURCE[keep]}. "
            f"Its label-free score is {selection.source.score:.3f}."
        )
    selected = f"step {selection.best_step} of {steps}"
    if selection.best_step == 0:
        selected = (
            f"the model before the first of {steps} steps, which differs from the source only in "
            "its BatchNorm statistics"
        )
    if keep == "last":
        selected += ", the last, whatever its score (--keep last)"
    return (
        f"{text}Selected: {selected}; label-free score {selection.best.score:.3f}, {source} "
        f"{selection.source.score:.3f}."
    )


def rejection_text(adaptation: Adaptation, lines: Sequence[dict[str, Any]]) -> str:
    """Why a checkpoint with a higher score was rejected; empty if none was."""
    selection = adaptation.selection
    if adaptation.task.selection.keep != "best":
        return ""
    higher = [line for line in lines if line.get("score", 0.0) > selection.best.score]
    if not higher:
        return ""
    highest = max(higher, key=lambda line: line["score"])
    student = adaptation.method.trains_on_ensemble and highest["step"] > 0
    reason = selection.rejection_reason(highest["score"], highest["accuracy"], student=student)
    if not reason:  # of a run that was resumed in other circumstances
        return ""
    return f"Step {highest['step']} scored {highest['score']:.3f} and was rejected: {reason}."
