"""Plan: the layout of a street, drawn at random before it is built."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LENGTH_M = 220.0


@dataclass(frozen=True)
class Plan:
    """The layout of a street, in metres and shares."""

    road_width: float
    pavement_widths: tuple[float, float]
    house_share: float
    tree_share: float
    fence_share: float
    side_street_y: float | None

    def edges(self, side: int) -> tuple[float, float]:
        """Where the pavement begins and ends on this side (-1 or 1), signed."""
        kerb = self.road_width / 2
        return side * kerb, side * (kerb + self.pavement_widths[(side + 1) // 2])


def draw_plan(random: np.random.Generator) -> Plan:
    """Choose a street at random."""
    return Plan(
        road_width=random.uniform(5.5, 11),
        pavement_widths=(random.uniform(1.5, 4.5), random.uniform(1.5, 4.5)),
        house_share=random.uniform(0.35, 0.97),
        tree_share=random.uniform(0.1, 0.7),
        fence_share=random.uniform(0.0, 0.5),
        side_street_y=random.uniform(20, 70) if random.random() < 0.35 else None,
    )
