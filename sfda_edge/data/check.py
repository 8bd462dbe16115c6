"""What of a public data set is there, missing or broken, and how much of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sfda_edge.data.datasets import Dataset
from sfda_edge.data.datasets.opening import FoundSplit, split_in
from sfda_edge.data.images import Sample
from sfda_edge.data.label_counts import LabelCounts
from sfda_edge.data.loading import LoadedImage, read_outcomes
from sfda_edge.errors import DataError
from sfda_edge.runs.progress import Progress, silent

_LISTED = 5
_EXAMPLES = 6


@dataclass
class SplitCheck:
    """One split of a data set on this disk.

    Attributes:
        found: what is there.
        num_read: how many images were read, spread evenly over the split.
        problems: what is wrong with each that cannot be used.
        counts: of the label maps that were read.
        examples: some of the images.
    """

    found: FoundSplit
    num_read: int
    problems: list[str]
    counts: LabelCounts
    examples: list[LoadedImage] = field(repr=False)

    @property
    def num_there(self) -> int:
        """Images on this disk, the broken ones that are left out included."""
        return len(self.found.samples) + len(self.found.left_out)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing or broken."""
        return not self.lacking

    @property
    def lacking(self) -> list[str]:
        """What is missing or broken, a phrase for each kind."""
        missing = max(0, (self.found.split.num_images or 0) - self.num_there)
        no_labels = bool(self.found.label_template) and not self.found.num_labelled
        found = {
            f"images missing: {missing}": missing,
            "no label map is there": no_labels,
            f"label maps missing: {len(self.found.without_labels)}": self.found.without_labels,
            f"images or label maps that cannot be used: {len(self.problems)}": self.problems,
        }
        return [text for text, is_so in found.items() if is_so]

    def text(self) -> str:
        """What was found, for people."""
        found = self.found
        official = found.split.num_images
        of = "" if official is None else f" of {official}"
        of += ", more than are released" if official and self.num_there > official else ""
        labels = str(found.num_labelled) if found.label_template else "0, none are released"
        lines = [
            f"{found.dataset.name} {found.split_name}, {found.folder}",
            f"  images       {self.num_there}{of}",
            f"  with labels  {labels}",
        ]
        lines += _listed("known to be broken, left out", found.left_out)
        lines += _listed("without labels", found.without_labels)
        lines += [f"  read         {self.num_read}, {len(self.problems)} of them cannot be used"]
        lines += [f"    {problem}" for problem in self.problems[:_LISTED]]
        lines += self._class_lines()
        if self.lacking:
            lines.append(f"  not complete: {', '.join(self.lacking)}")
        return "\n".join(lines)

    def _class_lines(self) -> list[str]:
        counts = self.counts
        total = int(counts.pixels.sum()) + counts.ignored
        if not total:
            return []
        lines = [f"  {'class':<26}{'of pixels':>10}{'images':>8}"]
        rows = zip(
            self.found.dataset.label_space.names, counts.pixels, counts.images_with, strict=True
        )
        lines += [f"  {name:<26}{100 * n / total:>8.2f} %{images:>8}" for name, n, images in rows]
        return [*lines, f"  {'ignored':<26}{100 * counts.ignored / total:>8.2f} %"]


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = " …" if len(names) > _LISTED else ""
    return [f"  {title}: {len(names)}: {', '.join(names[:_LISTED])}{more}"]


def check_split(
    dataset: Dataset,
    folder: Path,
    split_name: str,
    *,
    most_read: int | None = 200,
    progress: Progress = silent,
) -> SplitCheck | None:
    """Look for a split in a data set's folder, and read its images and label maps.

    Args:
        dataset: which.
        folder: the one that the official download has.
        split_name: one of its splits.
        most_read: how many images to read, spread evenly; None for all.
        progress: shows the reading.

    Returns:
        What is there, or None for nothing.

    Raises:
        DataError: there is no such split, or a folder cannot be read.
    """
    if split_name not in dataset.splits:
        raise DataError(f"{dataset.name} has no split '{split_name}': {', '.join(dataset.splits)}")
    found = split_in(dataset, split_name, folder.absolute())
    if found is None:
        return None
    return _read(found, _spread(found, most_read), progress)


def _spread(found: FoundSplit, most: int | None) -> list[Sample]:
    """Samples spread evenly, of a labelled split those with labels."""
    missing = set(found.without_labels)
    samples = [sample for sample in found.samples if sample.name not in missing]
    samples = samples or list(found.samples)
    if most is None or len(samples) <= most:
        return samples
    places = np.linspace(0, len(samples) - 1, most).round().astype(int)
    return [samples[place] for place in places]


def _read(found: FoundSplit, samples: list[Sample], progress: Progress) -> SplitCheck:
    space = found.dataset.label_space
    labelled = bool(samples) and samples[0].label_map is not None
    check = SplitCheck(
        found,
        num_read=len(samples),
        problems=[],
        counts=LabelCounts(space),
        examples=[],
    )
    every = max(1, len(samples) // _EXAMPLES)
    for number, outcome in enumerate(progress(read_outcomes(samples, space if labelled else None))):
        if isinstance(outcome, str):
            check.problems.append(outcome)
            continue
        if number % every == 0 and len(check.examples) < _EXAMPLES:
            check.examples.append(outcome)
        if outcome.label_map is not None:
            check.counts.update(outcome.label_map)
    return check
