"""GroundBuilder: grass, road, markings and pavements."""

from __future__ import annotations

import numpy as np
from panda3d.core import Texture

from sfda_edge.streetsynth import geometry, textures
from sfda_edge.streetsynth.plan import LENGTH_M, Plan
from sfda_edge.streetsynth.stage import Label, Stage
from sfda_edge.streetsynth.styles import Style

ROAD_Z = -0.12


class GroundBuilder:
    """Builds the ground of one street, with its ``layout`` and ``style``."""

    def __init__(self, stage: Stage, plan: Plan, style: Style, layout: np.random.Generator) -> None:
        self.stage, self.plan, self.style, self.random = stage, plan, style, layout

    def lay(self) -> None:
        """Put grass, road and markings on the stage."""
        self._ground()
        self._markings()

    def _surface(self, colour: float, tint: float, contrast: float) -> Texture:
        base = (colour + self.random.normal(size=3) * tint) * self.style.road_gain
        return textures.upload(textures.surface(self.random, base, contrast))

    def _ground(self) -> None:
        draw, half = self.random, self.plan.road_width / 2
        grass = draw.uniform((60, 88, 38), (110, 125, 60)) * self.style.road_gain
        self.stage.place(
            geometry.ground((-120, 120), (-20, LENGTH_M + 60), -0.16),
            Label.TREE,
            texture=textures.upload(textures.surface(draw, grass, 50)),
        )
        self.asphalt = self._surface(draw.uniform(70, 135), 4, draw.uniform(15, 45))
        self.stage.place(
            geometry.ground((-half, half), (-20, LENGTH_M), ROAD_Z),
            Label.ROAD,
            texture=self.asphalt,
        )
        slabs = textures.paving(draw, (draw.uniform(110, 180) + draw.normal(size=3) * 8))
        self.slabs = textures.upload(slabs * self.style.road_gain)
        if self.plan.side_street_y is not None:
            self._side_street(self.plan.side_street_y, draw.uniform(5, 8))

    def _side_street(self, y: float, width: float) -> None:
        half = self.plan.road_width / 2
        for x_range in ((-90.0, -half), (half, 90.0)):
            self.stage.place(
                geometry.ground(x_range, (y, y + width), 0.02), Label.ROAD, texture=self.asphalt
            )

    def _stripe(self, x: float, width: float, y0: float, y1: float, colour: np.ndarray) -> None:
        shape = geometry.ground((x - width / 2, x + width / 2), (y0, y1), ROAD_Z + 0.02)
        self.stage.place(shape, Label.ROAD, colour=colour)

    def _markings(self) -> None:
        draw, half = self.random, self.plan.road_width / 2
        paint = np.array([0.8, 0.7, 0.3] if draw.random() < 0.25 else [0.85, 0.85, 0.82])
        paint = paint * draw.uniform(0.75, 1.0)
        if draw.random() < 0.85:
            dash, pitch = draw.uniform(2, 4), draw.uniform(5, 9)
            for y in np.arange(-10, LENGTH_M, pitch):
                self._stripe(0, 0.13, y0=y, y1=y + dash, colour=paint)
        if draw.random() < 0.6:
            for side in (-1, 1):
                self._stripe(side * (half - 0.35), 0.11, y0=-20, y1=LENGTH_M, colour=paint)
        if draw.random() < 0.35:
            y = draw.uniform(12, 40)
            for x in np.arange(-half + 0.3, half - 0.2, 0.95):
                self._stripe(x, 0.45, y0=y, y1=y + 2.6, colour=np.array([0.85, 0.85, 0.85]))
        if draw.random() < 0.5:
            self._repairs(int(draw.integers(2, 6)))

    def _repairs(self, count: int) -> None:
        """Darker patches of newer asphalt."""
        draw, half = self.random, self.plan.road_width / 2
        for _ in range(count):
            x, y = draw.uniform(-half * 0.8, half * 0.8), draw.uniform(4, 50)
            self._stripe(
                x, draw.uniform(0.5, 1.6), y0=y, y1=y + draw.uniform(1, 7), colour=np.ones(3) * 0.2
            )

    def pavement(self, side: int) -> None:
        """Put the pavement of one side on the stage, with its kerb."""
        kerb, outer = self.plan.edges(side)
        low, high = sorted((kerb, outer))
        self.stage.place(
            geometry.ground((low, high), (-20, LENGTH_M), 0), Label.PAVEMENT, texture=self.slabs
        )
        stone = np.ones(3) * self.random.uniform(0.45, 0.72) * self.style.road_gain
        self.stage.place(
            geometry.box((0.18, LENGTH_M + 20, 0.13)),
            Label.PAVEMENT,
            (kerb, LENGTH_M / 2 - 10, -0.13),
            colour=stone,
        )
