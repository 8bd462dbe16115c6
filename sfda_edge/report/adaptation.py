"""The page of an adaptation run: what was selected and why, curves, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.overlay import Overlay
from sfda_edge.data.windows import recorded_windows
from sfda_edge.evaluation import Evaluation
from sfda_edge.methods.illustrations import Illustration
from sfda_edge.report.comparison import Comparison
from sfda_edge.report.contact_sheet import contact_sheet
from sfda_edge.report.curves import curves, paired_bars, smoothed
from sfda_edge.report.heat import heat
from sfda_edge.report.illustrations import illustration_section
from sfda_edge.report.page import Page, Section, picture_url
from sfda_edge.runs.directory import HOME_FILE
from sfda_edge.selection.checkpoint_selection import CheckpointSelection
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.test_time_ensemble import View, plain
from sfda_edge.selection.view_search import SelectedViews

# Logged every step or at scorings, but drawn elsewhere or not a loss.
_NOT_LOSSES = {"step", "score", "accuracy", "confidence", "class_shares", "pixels_used", "stopped"}


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportFacts:
    """What the page shows.

    Attributes:
        outcome: which model was selected, and why.
        run: what ``run.json`` holds.
        lines: of ``metrics.jsonl``.
        selection: the scores of source and best model.
        views: that were compared.
        comparison: predictions before and after.
        illustrations: of the method's own parts.
        space: the predicted classes.
        config: constants of the selection.
        scores: on labelled images before and after; None without any.
        source_scores: the same on images of the source domain.
        home_score: on these, of the adapted weights with the source's statistics.
    """

    outcome: str
    run: dict[str, Any]
    lines: Sequence[dict[str, Any]]
    selection: CheckpointSelection
    views: SelectedViews
    comparison: Comparison
    illustrations: Sequence[Illustration]
    space: LabelSpace
    config: SelectionConfig
    scores: tuple[Evaluation, Evaluation] | None
    source_scores: tuple[Evaluation, Evaluation] | None
    home_score: Evaluation | None


def adaptation_page(facts: ReportFacts) -> Page:
    """The sections of the page; those without content are left out."""
    sections = [
        run_section(facts.run),
        _comparison_section(facts.comparison, facts.space, scored=facts.scores is not None),
        *_score_sections(facts),
        *_loss_sections(facts.lines),
        *selection_sections(facts),
        views_section(facts.views),
        *(illustration_section(shown, facts.space) for shown in facts.illustrations),
    ]
    return Page("Adaptation report", facts.outcome, sections)


def _comparison_section(comparison: Comparison, space: LabelSpace, *, scored: bool) -> Section:
    """Image, source, adapted, the ensemble's labels and its confidence, a row an image."""
    overlay = Overlay(space, legend=False)
    rows = [
        [
            image,
            *(overlay.draw(image, labels) for labels in (before, after, ensemble)),
            heat(confidence),
        ]
        for image, before, after, ensemble, confidence in zip(
            comparison.images,
            comparison.before,
            comparison.after,
            comparison.ensemble,
            comparison.confidence,
            strict=True,
        )
    ]
    titles = ["target image", "source model", "adapted", "ensemble of views", "its confidence"]
    text = (
        f"{_changed(comparison, scored=scored)} The last two pictures show the labels of the "
        "ensemble of views, on which some methods train and by which all are scored, and its "
        "confidence from dark (low) to light (high)."
    )
    sheet = contact_sheet(rows, titles, space, row_height=150)
    return Section("Before and after", text, picture=picture_url(sheet))


def run_section(run: dict[str, Any]) -> Section:
    """Which run this is: ``run.json`` in short."""
    inputs = run["inputs"]
    windows = recorded_windows(inputs)
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    settings = ", ".join(f"{name} = {value}" for name, value in inputs["recipe"].items())
    rows = [
        ("method", inputs["method"]),
        ("settings", settings),
        ("model", f"{inputs['model']} at {inputs['size']}, {inputs['precision']}"),
        ("weights", f"{inputs['weights']} (sha256 {inputs['weights_sha256'][:12]}…)"),
        ("target images", inputs["images"] + (f", windows {windows.text()}" if windows else "")),
        ("started", f"{run['started']}, {inputs['device']}, {run['threads']} threads"),
        ("with", versions),
    ]
    return Section("The run", table=[("", ""), *rows])


def scores_text(scores: tuple[Evaluation, Evaluation], selection: CheckpointSelection) -> str:
    """One sentence: mIoU before and after, beside what the run expected without labels.

    A source model that is sure of what is wrong misleads its own selection, which only this shows.
    """
    before, after = scores
    expected = selection.source.score, selection.best.score
    return (
        f"On {before.num_images} labelled images, not used for training: mIoU "
        f"{100 * before.scores.miou:.1f} before, {100 * after.scores.miou:.1f} after; without "
        f"labels {100 * expected[0]:.1f} and {100 * expected[1]:.1f} were expected."
    )


def _changed(comparison: Comparison, *, scored: bool) -> str:
    text = f"The label changed in {100 * comparison.share_changed:.1f} % of these pixels."
    if scored:
        return text
    return f"{text} Only labels can show whether it is better: sfda-edge evaluate, or --validation."


def forgetting_text(
    scores: tuple[Evaluation, Evaluation], home_score: Evaluation | None = None
) -> str:
    """MIoU on the source domain before and after, and after with the source's statistics."""
    before, after = (100 * evaluation.scores.miou for evaluation in scores)
    text = (
        f"On {scores[0].num_images} labelled images of the source domain: mIoU {before:.1f} "
        f"before, {after:.1f} after ({after - before:+.1f})."
    )
    if home_score is None:
        return text
    home = 100 * home_score.miou
    return f"{text} {HOME_FILE}, the same weights with the source's statistics: {home:.1f}."


def _score_sections(facts: ReportFacts) -> list[Section]:
    sections = []
    if facts.scores is not None:
        text = scores_text(facts.scores, facts.selection)
        sections.append(_score_section("Scores", text, facts.scores, facts.space))
    if facts.source_scores is not None:
        found = forgetting_text(facts.source_scores, facts.home_score)
        text = f"{found} What the adapted model has lost there, it has forgotten."
        sections.append(_score_section("At home", text, facts.source_scores, facts.space))
    return sections


def _score_section(
    title: str, text: str, scores: tuple[Evaluation, Evaluation], space: LabelSpace
) -> Section:
    ious = 100 * np.array([evaluation.scores.iou for evaluation in scores])
    scored = np.isfinite(ious).any(0)  # others are neither labelled nor predicted
    names = [name for name, there in zip(space.names, scored, strict=True) if there]
    before, after = np.nan_to_num(ious[:, scored])
    bars = paired_bars(names, before, after, "IoU, %")
    return Section(title, text, picture=picture_url(bars))


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
    """All in one picture, each divided by its largest absolute value."""
    scaled = {}
    for name, (steps, values) in series.items():
        largest = max(abs(value) for value in values) or 1.0
        scaled[f"{name} / {largest:.3g}"] = (steps, [value / largest for value in values])
    picture = picture_url(curves(scaled, "share of the largest value"))
    text = (
        "Running means over 1/40 of the values. Each curve is divided by its largest absolute "
        "value, the number after its name."
    )
    return Section("Losses", text, picture=picture)


_KEPT = {
    "best": "",
    "last": "With --keep last, as here, the last checkpoint is returned whatever its score. ",
    "source": "With --keep source, as here, the source is returned whatever the scores. ",
}


def selection_sections(facts: ReportFacts) -> list[Section]:
    """The label-free score of every scored checkpoint, and its classes."""
    scored = [line for line in facts.lines if "score" in line]
    steps, selection = [line["step"] for line in scored], facts.selection
    figures = ("score", "accuracy", "confidence")
    series = {name: (steps, [line[name] for line in scored]) for name in figures}
    series["score of the source"] = ([0, steps[-1]], [selection.source.score] * 2)
    if selection.best_step is not None:
        series["selected"] = ([selection.best_step], [selection.best.score])
    shares = np.array([line["class_shares"] for line in scored])
    colours = {
        name: tuple(channel / 255 for channel in colour)
        for name, colour in zip(facts.space.names, facts.space.palette, strict=True)
    }
    by_class = {
        name: (steps, (100 * shares[:, index]).tolist())
        for index, name in enumerate(facts.space.names)
    }
    allowed = 100 * (facts.config.max_error_ratio - 1)
    return [
        Section(
            "Checkpoint selection without labels",
            "The score is an expected mIoU. Its reference is half the ensemble of the views below "
            "and half the model's own prediction for the mirrored image. Accuracy is the share of "
            "correct pixels by the same reference. The checkpoint with the best score is selected, "
            "the source model if none is better. A checkpoint is rejected if it expects "
            f"{allowed:.0f} % more errors than the source. A student trained on the ensemble's "
            f"labels has to score {selection.least_student_score:.3f}. "
            f"{_KEPT[facts.config.keep]}Step 0 is the model before training, with the BatchNorm "
            "statistics that the method starts with. Confidence is shown, not used.",
            picture=picture_url(curves(series, "in [0, 1]")),
        ),
        Section(
            "Classes over the run",
            "Share of the pixels of the probe images. A run is stopped if its predictions collapse "
            "into few classes and its score does not rise.",
            picture=picture_url(curves(by_class, "% of the pixels", colours)),
        ),
    ]


def views_section(views: SelectedViews) -> Section:
    """Which views were compared, and which are in the ensemble."""
    titles = ("size", "target share in BatchNorm", "expected mIoU", "accuracy", "ensemble")
    rows = [["compared", *titles]]
    for compared, scores in (("shares", views.by_share), ("sizes", views.by_size)):
        for view in sorted(scores, key=lambda view: (view.size_hw, view.target_share)):
            score, (height, width) = scores[view], view.size_hw
            use = _use(view, views.kept) if compared == "sizes" else ""
            share = f"{view.target_share:.1f}"
            figures = [f"{score.miou:.3f}", f"{score.accuracy:.3f}"]
            rows.append([compared, f"{width}x{height}", share, *figures, use])
    text = (
        "Expected mIoU and accuracy of the source model, without labels. First, shares of target "
        "statistics are compared at the input size, the best on all probe images and the others on "
        "a quarter, so that theirs cannot be compared with the best; then sizes with the best "
        "share. Shares are scored by their own mirror images, sizes by one another too, so scores "
        "of the two groups, and the score above, cannot be compared. A view with clearly lower "
        "accuracy is left out. The ensemble is the best view and the mirrored second best; if that "
        "is clearly worse, the best view and its mirror image."
    )
    return Section("Views", text, table=rows)


def _use(view: View, kept: Sequence[View]) -> str:
    """How the ensemble uses a view; empty if it does not."""
    return " and ".join(
        "mirrored" if one.mirrored else "plain" for one in kept if plain(one) == view
    )
