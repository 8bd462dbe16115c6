"""Which points are worth taking: no other is as fast and as accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One way to run a model.

    Attributes:
        name: of the way.
        p50_ms: time of a frame; less is better.
        miou: in percent; more is better.
    """

    name: str
    p50_ms: float
    miou: float

    def dominates(self, other: Point) -> bool:
        """Whether it is at least as good in both and better in one."""
        no_worse = self.p50_ms <= other.p50_ms and self.miou >= other.miou
        return no_worse and (self.p50_ms, self.miou) != (other.p50_ms, other.miou)


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other dominates, the fastest first."""
    kept = [one for one in points if not any(other.dominates(one) for other in points)]
    return sorted(kept, key=lambda one: (one.p50_ms, -one.miou))
