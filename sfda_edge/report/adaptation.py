"""The page of an adaptation run: what was returned and why, curves, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from runtime.bundle.labels import LabelSpace
from runtime.overlay import Overlay
from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.evaluation.evaluate import Evaluation, Predictor
from sfda_edge.report.contact_sheet import contact_sheet
from sfda_edge.report.curves import curves, paired_bars, smoothed
from sfda_edge.report.heat import heat
from sfda_edge.report.page import Page, Section, picture_url
from sfda_edge.selection.checkpoint_selection import LEAST_SCORE_OF_PUPILS, Guard
from sfda_edge.selection.test_time_ensemble import Teacher, View, unmirrored
from sfda_edge.selection.view_search import Views

NUM_PICTURES = 4
# Logged every step or at judgements, but drawn elsewhere or not a loss.
_NOT_LOSSES = {"step", "score", "accuracy", "confidence", "class_shares", "pixels_used", "stopped"}


@dataclass(frozen=True, eq=False)
class Comparison:
    """The source and the adapted model on a few target images.

    Attributes:
        sheet: the picture.
        share_changed: of the pixels whose label is another now.
    """

    sheet: np.ndarray
    share_changed: float


def compare(
    task: AdaptationTask, before: Predictor, after: Predictor, teacher: Teacher
) -> Comparison:
    """Draw image | source | adapted | what the views agree on | how surely."""
    overlay = Overlay(task.spec.answer_space, legend=False)
    rows, changed = [], []
    for index in task.target.spread(NUM_PICTURES):
        images = task.target.images([index])
        image = np.ascontiguousarray(images[0].permute(1, 2, 0).numpy())
        first, second = before.label_map(image), after.label_map(image)
        best = teacher.probabilities([index], task.spec.input_hw).max(1)
        consensus = best.indices[0].to(torch.uint8).cpu().numpy()
        rows.append(
            [
                image,
                overlay.draw(image, first),
                overlay.draw(image, second),
                overlay.draw(image, consensus),
                heat(best.values[0].cpu().numpy()),
            ]
        )
        changed.append(float((first != second).mean()))
    titles = ["target image", "source model", "adapted", "pseudo-label: the views", "how surely"]
    sheet = contact_sheet(rows, titles, task.spec.answer_space, row_height=150)
    return Comparison(sheet, float(np.mean(changed)))


def adaptation_page(
    outcome: str,
    made_of: dict[str, Any],
    lines: Sequence[dict[str, Any]],
    guard: Guard,
    views: Views,
    comparison: Comparison,
    illustrations: Sequence[Section],
    space: LabelSpace,
    scores: tuple[Evaluation, Evaluation] | None,
) -> Page:
    """All sections that the run has something to show for."""
    sections = [
        run_section(made_of),
        Section(
            "Before and after",
            _changed(comparison, scored=scores is not None)
            + " The last two pictures are what the source's good views agree on, which some "
            "methods learn and all are judged by, and how surely, from dark to light.",
            picture=picture_url(comparison.sheet),
        ),
        *_score_sections(scores, space),
        *_loss_sections(lines),
        *_judgement_sections(lines, guard, space),
        views_section(views),
        *illustrations,
    ]
    return Page("Adaptation report", outcome, sections)


def run_section(made_of: dict[str, Any]) -> Section:
    """Which run this is: ``run.json`` in short."""
    inputs = made_of["inputs"]
    versions = ", ".join(f"{name} {version}" for name, version in made_of["versions"].items())
    settings = ", ".join(f"{name} = {value}" for name, value in inputs["recipe"].items())
    rows = [
        ("method", inputs["method"]),
        ("settings", settings),
        ("model", f"{inputs['model']} at {inputs['size']}, {inputs['precision']}"),
        ("weights", f"{inputs['weights']} (sha256 {inputs['weights_sha256'][:12]}…)"),
        ("target images", inputs["images"]),
        ("begun", f"{made_of['started']}, {inputs['device']}, {made_of['threads']} threads"),
        ("with", versions),
    ]
    return Section("The run", table=[("", ""), *rows])


def scores_text(scores: tuple[Evaluation, Evaluation]) -> str:
    """One sentence: mIoU before and after."""
    before, after = scores
    return (
        f"On {before.num_images} labelled images that nothing was learnt from: mIoU "
        f"{100 * before.scores.miou:.1f} before, {100 * after.scores.miou:.1f} after."
    )


def _changed(comparison: Comparison, *, scored: bool) -> str:
    text = f"{100 * comparison.share_changed:.1f} % of these pixels have another label than before."
    if scored:
        return text
    return (
        f"{text} Whether they are better, labels alone can tell: sfda-edge evaluate, or "
        "--validation."
    )


def _score_sections(
    scores: tuple[Evaluation, Evaluation] | None, space: LabelSpace
) -> list[Section]:
    if scores is None:
        return []
    ious = 100 * np.array([evaluation.scores.iou for evaluation in scores])
    scored = np.isfinite(ious).any(0)  # others are neither in the labels nor in an answer
    names = [name for name, there in zip(space.names, scored, strict=True) if there]
    before, after = np.nan_to_num(ious[:, scored])
    bars = paired_bars(names, before, after, "IoU, %")
    return [Section("Scores", scores_text(scores), picture=picture_url(bars))]


def _loss_sections(lines: Sequence[dict[str, Any]]) -> list[Section]:
    names = sorted({name for line in lines for name in line} - _NOT_LOSSES)
    series = {}
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        steps, values = zip(*points, strict=True)
        series[name] = (steps, smoothed(values, max(1, len(values) // 40)))
    if not series:
        return []
    return [_losses(series)]


def _losses(series: dict[str, Any]) -> Section:
    """All in one picture, each scaled to its own largest size."""
    scaled = {}
    for name, (steps, values) in series.items():
        largest = max(abs(value) for value in values) or 1.0
        scaled[f"{name} / {largest:.3g}"] = (steps, [value / largest for value in values])
    picture = picture_url(curves(scaled, "share of the largest size"))
    text = (
        "Each a running mean over a fortieth of its values, divided by the figure behind its name: "
        "its largest distance from zero."
    )
    return Section("Losses", text, picture=picture)


def _judgement_sections(
    lines: Sequence[dict[str, Any]], guard: Guard, space: LabelSpace
) -> list[Section]:
    judged = [line for line in lines if "score" in line]
    steps = [line["step"] for line in judged]
    figures = ("score", "accuracy", "confidence")
    series = {name: (steps, [line[name] for line in judged]) for name in figures}
    series["source's score"] = ([0, steps[-1]], [guard.source.score] * 2)
    if guard.best_step is not None:
        series["returned"] = ([guard.best_step], [guard.best.score])
    shares = np.array([line["class_shares"] for line in judged])
    colours = {
        name: tuple(channel / 255 for channel in colour)
        for name, colour in zip(space.names, space.palette, strict=True)
    }
    by_class = {
        name: (steps, (100 * shares[:, index]).tolist()) for index, name in enumerate(space.names)
    }
    return [
        Section(
            "Without labels: score of every judgement",
            "Mean IoU to expect if the truth were half the consensus of the views below, half what "
            "the model itself answers in the mirror, and the accuracy by the same truth. The best "
            "checkpoint is returned, the source model when none is better; one that expects a "
            "tenth more errors than the source is not, nor one that has learnt the consensus and "
            f"gains less than {100 * (LEAST_SCORE_OF_PUPILS - 1):.0f} % by it. Step 0 is the model "
            "before anything is learnt, with the BatchNorm statistics that the method begins with. "
            "Confidence is shown, not used.",
            picture=picture_url(curves(series, "in [0, 1]")),
        ),
        Section(
            "Classes over the run",
            "Share of the probe images' pixels. A run that collapses into few classes is stopped, "
            "unless its score rises.",
            picture=picture_url(curves(by_class, "% of the pixels", colours)),
        ),
    ]


def views_section(views: Views) -> Section:
    """Which ways of looking at the target were compared, and which are in the consensus."""
    titles = ("size", "target's share in BatchNorm", "promised mIoU", "accuracy", "consensus")
    rows = [["compared", *titles]]
    for compared, promises in (("shares", views.by_share), ("sizes", views.by_size)):
        for view, promised in promises.items():
            height, width = view.size_hw
            ways = _ways(view, views.kept) if compared == "sizes" else ""
            share = f"{view.target_share:.1f}"
            figures = [f"{promised.miou:.3f}", f"{promised.accuracy:.3f}"]
            rows.append([compared, f"{width}x{height}", share, *figures, ways])
    text = (
        "The mean IoU and accuracy that the source model promises, without labels, in each way of "
        "looking at the target: first shares of the target's statistics are compared with one "
        "another, then sizes at the best share. Each is judged by those that it is compared with, "
        "so the groups, and the score above, are not on one scale. What promises clearly less "
        "accuracy than another is out. The consensus is made of the best as it is and of the next, "
        "if that promises nearly as much, else the best again, in the mirror."
    )
    if views.trusted_share < 1:
        text += (
            f" No more than {views.trusted_share:.1f} of the target's statistics was considered: "
            "with all of them the answers change too much in the mirror."
        )
    return Section("Views", text, table=rows)


def _ways(view: View, kept: Sequence[View]) -> str:
    """How a view stands in the consensus; empty if it does not."""
    return " and ".join(
        "in the mirror" if one.mirrored else "as it is" for one in kept if unmirrored(one) == view
    )
