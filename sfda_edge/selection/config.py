"""SelectionConfig: every constant by which views, statistics and checkpoints are selected.

None of them is a setting of a method, and none was set by labels of the images it is used on. Each
has its reason beside it; ``sfda-edge recipes selection`` prints them, ``run.json`` records them.
Figures without a source are in ``benchmarks/results/adaptation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

KEEP = ("best", "last", "source")


def _constant(default: Any, reason: str) -> Any:
    return field(default=default, metadata={"reason": reason})


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Constants of label-free selection; the reasons are the fields' metadata.

    Raises:
        ValueError: a value is out of range.
    """

    probe_images: int = _constant(
        16,
        "images that views, statistics and checkpoints are scored on; a view's statistics are "
        "theirs: with those of 48 images task A returned 0.7 points less, in each of three seeds",
    )
    probe_batch_size: int = _constant(4, "images of one forward pass on them")
    statistics_images: int = _constant(
        48, "images that the statistics of the trained network are estimated from"
    )
    statistics_batch_size: int = _constant(
        8, "images of one such pass; each batch is normalised by itself"
    )
    target_shares: tuple[float, ...] = _constant(
        (0.0, 0.3, 0.6, 1.0), "shares of the target in BatchNorm statistics that are compared"
    )
    share_finalists: int = _constant(
        2,
        "shares that see all of these images; the others see a quarter, by which the best share of "
        "13 tasks was always among the two best",
    )
    scales: tuple[float, ...] = _constant(
        (0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0),
        "input sizes that are compared; as many smaller as larger ones, since the size in the "
        "middle agrees best with the others",
    )
    second_view_ratio: float = _constant(
        0.9,
        "the second view of the ensemble has at least this share of the best one's expected mIoU; "
        "without such a view the best one is used again, mirrored; a third view takes as much time "
        "again and brought little",
    )
    accuracy_slack: float = _constant(
        0.03, "sizes whose expected accuracy is further below the best one's are left out"
    )
    share_accuracy_slack: float = _constant(
        0.08,
        "shares likewise: the best share is up to 0.077 below on whole scenes, those that make "
        "classes up are 0.087 to 0.24 below on road or sky only",
    )
    min_diversity: float = _constant(
        0.6,
        "share of the class entropy below which predictions have lost classes: of BatchNorm with "
        "stored against batch statistics, of a checkpoint against the source",
    )
    min_entropy: float = _constant(
        0.008, "class entropy, in nats, of a second class in 1 of 1000 pixels: less is none"
    )
    rare_class_share: float = _constant(
        5e-4, "a class in fewer of the pixels is too rare for its IoU to count"
    )
    max_error_ratio: float = _constant(
        1.05,
        "a checkpoint may expect at most so many times the source's wrong pixels: 1.03 "
        "times at most in eight runs that gained, 1.064 where bare road got worse",
    )
    min_student_effect: float = _constant(
        0.073,
        "how far a model trained on the ensemble's labels has to be above the source's score, as "
        "Cohen's h: 2 asin(sqrt(a)) - 2 asin(sqrt(b)), a scale on which a rise from 0.89 to 0.91 "
        "counts as much as one from 0.5 to 0.54. Scores rose by up to 0.068 on targets without "
        "domain shift, by 0.079 and more on others",
    )
    keep: Literal["best", "last", "source"] = _constant(
        "best",
        "which model a run returns (--keep): the checkpoint with the best score, the last one "
        "whatever its score, or the source",
    )
    scorings: int = _constant(8, "how often a run's checkpoints are scored")
    min_steps_between: int = _constant(10, "but not more often than every so many steps")
    max_steps_between: int = _constant(250, "and at least every so many")
    max_variance_ratio: float = _constant(
        2.0,
        "stored BatchNorm variances are unusable where the target's differ by more (geometric "
        "mean): 1.06 to 1.41 for any content, 2.5 to 31 for damaged checkpoints",
    )
    max_mean_shift: float = _constant(
        10.0, "or where the target's means are more than so many stored deviations away"
    )

    def __post_init__(self) -> None:
        sizes = (
            self.probe_images,
            self.probe_batch_size,
            self.statistics_images,
            self.statistics_batch_size,
            self.share_finalists,
            self.scorings,
            self.min_steps_between,
        )
        if min(sizes) < 1 or self.max_steps_between < self.min_steps_between:
            raise ValueError("counts of a SelectionConfig must be at least 1, and min <= max")
        if self.target_shares[:1] != (0.0,) or not all(0 <= s <= 1 for s in self.target_shares):
            raise ValueError("target_shares must begin with 0 and lie in [0, 1]")
        if self.keep not in KEEP:
            raise ValueError(f"keep must be one of {', '.join(KEEP)}, got {self.keep!r}")
        if 1.0 not in self.scales or min(self.scales) <= 0:
            raise ValueError("scales must be above 0 and contain 1, the input size")

    def steps_between_scorings(self, num_steps: int) -> int:
        """After how many steps a run of ``num_steps`` is scored again."""
        evenly = max(self.min_steps_between, num_steps // self.scorings)
        return min(evenly, self.max_steps_between)

    def text(self) -> str:
        """All constants as TOML, each below its reason."""
        lines = [f"# {__doc__.splitlines()[0]}" if __doc__ else ""]
        for one in fields(self):
            value = getattr(self, one.name)
            written = list(value) if isinstance(value, tuple) else value
            written = f'"{value}"' if isinstance(value, str) else written
            lines += ["", f"# {one.metadata['reason']}", f"{one.name} = {written}"]
        return "\n".join(lines) + "\n"
