"""StreetBuilder: houses, gardens, trees, poles and signs along a street."""

from __future__ import annotations

import numpy as np
from panda3d.core import Texture

from sfda_edge.streetsynth import geometry, textures
from sfda_edge.streetsynth.ground import GroundBuilder
from sfda_edge.streetsynth.plan import LENGTH_M, Plan
from sfda_edge.streetsynth.stage import Label, Stage
from sfda_edge.streetsynth.styles import Style

SIGN_COLOURS = ((0.8, 0.1, 0.1), (0.1, 0.2, 0.7), (0.9, 0.9, 0.9), (0.9, 0.8, 0.1), (0.1, 0.5, 0.2))


class StreetBuilder:
    """Builds one street. ``layout`` decides what stands where, ``style`` only how it looks."""

    def __init__(self, stage: Stage, plan: Plan, style: Style, layout: np.random.Generator) -> None:
        self.stage, self.plan, self.style, self.random = stage, plan, style, layout
        draw = layout
        self.facades = [textures.facade(draw) for _ in range(6)]
        self.walls = [textures.upload(facade.image) for facade in self.facades]
        self.shops = [textures.upload(textures.shop_front(draw)) for _ in range(2)]
        greens = [draw.uniform((45, 68, 28), (95, 122, 58)) for _ in range(3)]
        self.leaves = [textures.upload(textures.foliage(draw, green)) for green in greens]
        self.bark = textures.upload(textures.surface(draw, [82, 68, 54], 45))
        self.fence = self._fence_texture()

    def build(self) -> None:
        """Put the whole street on the stage."""
        ground = GroundBuilder(self.stage, self.plan, self.style, self.random)
        ground.lay()
        for side in (-1, 1):
            ground.pavement(side)
            self._houses(side)
            self._trees(side)
            self._furniture(side)

    def _fence_texture(self) -> Texture:
        draw = self.random
        if draw.random() < 0.5:
            return textures.upload(textures.railing(draw.uniform(30, 160, 3)))
        return textures.upload(textures.planks(draw, draw.uniform(60, 165, 3)))

    def _houses(self, side: int) -> None:
        draw, y = self.random, -8.0
        while y < LENGTH_M:
            width = draw.uniform(6, 20)
            if draw.random() < self.plan.house_share:
                self._house(side, y, width)
            else:
                self._garden(side, y, width)
            y += width + (draw.uniform(0, 8) if draw.random() < 0.2 else 0)

    def _house(self, side: int, y: float, width: float) -> None:
        draw, outer = self.random, self.plan.edges(side)[1]
        low, middle, high = draw.uniform((4, 7, 12), (8, 14, 28))
        height = draw.choice([low, middle, high], p=[0.35, 0.5, 0.15])
        depth, floor = draw.uniform(6, 14), draw.uniform(2.6, 3.6)
        setback = 0.1 if draw.random() < 0.6 else draw.uniform(0.5, 6)
        kind, at = (
            draw.integers(len(self.walls)),
            (outer + side * (setback + depth / 2), y + width / 2, 0),
        )
        self.stage.place(
            geometry.box((depth, width, height), 0.25 / floor),
            Label.BUILDING,
            at,
            texture=self.walls[kind],
        )
        face = outer + side * (setback - 0.04)
        self._lights(
            side,
            face,
            y=y,
            width=width,
            height=height,
            floor=floor,
            window=self.facades[kind].windows,
        )
        if draw.random() < 0.35 and setback < 1:
            self._shop(outer + side * setback, y, width, floor)
        self._roof(at, (depth, width, height))
        if setback > 1 and draw.random() < self.plan.fence_share + 0.2:
            self._fence(side, outer + side * 0.15, y=y, width=width, height=1.3)

    def _lights(
        self,
        side: int,
        face: float,
        y: float,
        width: float,
        height: float,
        floor: float,
        window: tuple[float, float, float, float],
    ) -> None:
        """Lit windows on the street side; drawn for every style so that layouts stay the same."""
        bays, floors = int(width / floor), int(height / floor)
        lit = self.random.random((bays, floors)) < self.style.lit_windows
        if not lit.any():
            return
        bay, level = np.nonzero(lit)
        y0, y1, z0, z1 = window
        # A box's texture starts at its low edges; the bays follow it upward and along the street.
        panes = np.stack([bay + y0, bay + y1, level + z0, level + z1], -1) * floor
        shape = geometry.panels(panes, -side)
        self.stage.place(
            shape, Label.BUILDING, (face, y, 0), colour=(1.0, 0.86, 0.55), glowing=True
        )

    def _shop(self, x: float, y: float, width: float, floor: float) -> None:
        shape = geometry.box((0.3, width * 0.96, floor))
        texture = self.shops[self.random.integers(len(self.shops))]
        self.stage.place(shape, Label.BUILDING, (x, y + width / 2, 0), texture=texture)

    def _roof(self, at: tuple[float, float, float], size: tuple[float, float, float]) -> None:
        draw, (depth, width, height) = self.random, size
        if draw.random() < 0.45:
            rise = draw.uniform(1.5, 3.5)
            gable = geometry.profile(
                [(-depth / 2 - 0.3, 0), (0, rise), (depth / 2 + 0.3, 0)], width
            )
            tiles = np.array([0.42, 0.28, 0.24]) * draw.uniform(0.6, 1.3)
            roof = self.stage.place(gable, Label.BUILDING, (at[0], at[1], height), colour=tiles)
            roof.setH(90)
            if draw.random() < 0.6:
                chimney = geometry.box((0.7, 0.9, rise + 1.0))
                place = (at[0], at[1] + draw.uniform(-0.35, 0.35) * width, height)
                self.stage.place(chimney, Label.BUILDING, place, colour=tiles * 0.8)
        else:
            rim = geometry.box((depth + 0.4, width, 0.35))
            self.stage.place(
                rim,
                Label.BUILDING,
                (at[0], at[1], height),
                colour=np.ones(3) * draw.uniform(0.3, 0.7),
            )

    def _fence(self, side: int, x: float, y: float, width: float, height: float) -> None:
        shape = geometry.panels([[0, width, 0, height]], -side)
        self.stage.place(shape, Label.FENCE, (x, y, 0), texture=self.fence)

    def _garden(self, side: int, y: float, width: float) -> None:
        draw, outer = self.random, self.plan.edges(side)[1]
        if draw.random() < self.plan.fence_share + 0.25:
            self._fence(side, outer + side * 0.15, y=y, width=width, height=1.5)
        for _ in range(draw.integers(1, 5)):
            bush = geometry.blob(draw, draw.uniform((1, 1, 0.8), (3, 3, 2.2)))
            place = (outer + side * draw.uniform(1.5, 9), y + draw.uniform(0, width), 0.6)
            self.stage.place(bush, Label.TREE, place, texture=self._leaf())

    def _leaf(self) -> Texture:
        return self.leaves[self.random.integers(len(self.leaves))]

    def _trees(self, side: int) -> None:
        draw, y = self.random, self.random.uniform(0, 8)
        kerb = abs(self.plan.edges(side)[0])
        while y < 150:
            if draw.random() < self.plan.tree_share:
                behind = self.plan.pavement_widths[(side + 1) // 2] + draw.uniform(0.8, 4)
                offset = draw.uniform(0.6, 1.2) if draw.random() < 0.5 else behind
                self._tree(side * (kerb + offset), y)
            y += draw.uniform(6, 18)

    def _tree(self, x: float, y: float) -> None:
        draw, height = self.random, self.random.uniform(2, 4)
        trunk = geometry.tube(draw.uniform(0.1, 0.28), height + 1)
        self.stage.place(trunk, Label.TREE, (x, y, 0), texture=self.bark)
        if draw.random() < 0.25:
            self._bare_crown(x, y, height)
            return
        reach = draw.uniform(0.7, 1.5)
        for _ in range(draw.integers(7, 13)):
            puff = geometry.blob(draw, draw.uniform(0.5, 1.2, 3) * reach, 0.3)
            place = np.array([x, y, height + 1.4 * reach]) + draw.normal(size=3) * 0.75 * reach
            self.stage.place(puff, Label.TREE, place, texture=self._leaf())

    def _bare_crown(self, x: float, y: float, height: float) -> None:
        draw = self.random
        for _ in range(draw.integers(10, 20)):
            length = draw.uniform(1.2, 3.2)
            branch = geometry.tube(0.04, length, 4)
            node = self.stage.place(
                branch, Label.TREE, (x, y, height * draw.uniform(0.75, 1.15)), texture=self.bark
            )
            node.setHpr(draw.uniform(0, 360), draw.uniform(-55, 55), draw.uniform(-55, 55))

    def _furniture(self, side: int) -> None:
        draw, y = self.random, self.random.uniform(2, 14)
        kerb = self.plan.edges(side)[0]
        makers = (self._lamp, self._bollard, self._sign, self._traffic_light)
        while y < 130:
            maker = makers[draw.choice(4, p=[0.35, 0.2, 0.28, 0.17])]
            maker(
                kerb + side * draw.uniform(0.3, 0.8), y, side, np.ones(3) * draw.uniform(0.15, 0.6)
            )
            y += draw.uniform(7, 25)

    def _lamp(self, x: float, y: float, side: int, grey: np.ndarray) -> None:
        height = self.random.uniform(5, 8.5)
        self.stage.place(geometry.tube(0.09, height), Label.POLE, (x, y, 0), colour=grey)
        arm = geometry.box((1.6, 0.12, 0.1))
        self.stage.place(arm, Label.POLE, (x - side * 0.8, y, height), colour=grey)
        head = geometry.box((0.6, 0.22, 0.1))
        self.stage.place(
            head,
            Label.POLE,
            (x - side * 1.4, y, height - 0.08),
            colour=(1.0, 0.9, 0.65),
            glowing=self.style.lit_windows > 0,
        )

    def _bollard(self, x: float, y: float, _side: int, grey: np.ndarray) -> None:
        height = self.random.uniform(0.9, 1.2)
        self.stage.place(
            geometry.tube(0.1, height, capped=True), Label.POLE, (x, y, 0), colour=grey
        )

    def _sign(self, x: float, y: float, _side: int, grey: np.ndarray) -> None:
        draw, height = self.random, self.random.uniform(2.2, 3.2)
        self.stage.place(geometry.tube(0.05, height), Label.POLE, (x, y, 0), colour=grey)
        colour, size = SIGN_COLOURS[draw.integers(len(SIGN_COLOURS))], draw.uniform(0.5, 0.95)
        if draw.random() < 0.5:
            board = geometry.box((size, 0.05, draw.uniform(0.5, 1.0)))
            self.stage.place(board, Label.SIGN, (x, y - 0.08, height - 0.4), colour=colour)
            return
        sides = 3 if draw.random() < 0.3 else 16
        for radius, ahead, paint in (
            (size / 2, 0.0, colour),
            (size * 0.36, 0.02, (0.92, 0.92, 0.9)),
        ):
            disc = geometry.tube(radius, 0.03, sides, capped=True)
            node = self.stage.place(disc, Label.SIGN, (x, y - 0.06 - ahead, height), colour=paint)
            node.setHpr(0, 90, 30 if sides == 3 else 0)

    def _traffic_light(self, x: float, y: float, _side: int, grey: np.ndarray) -> None:
        lamp = self.random.integers(3)
        self.stage.place(geometry.tube(0.08, 3), Label.POLE, (x, y, 0), colour=grey)
        case = geometry.box((0.35, 0.3, 1.0))
        self.stage.place(case, Label.SIGN, (x, y - 0.1, 2.4), colour=(0.08, 0.08, 0.08))
        colours = ((0.2, 1.0, 0.4), (1.0, 0.7, 0.1), (1.0, 0.2, 0.1))
        for index, colour in enumerate(colours):
            bulb = geometry.box((0.2, 0.05, 0.2))
            place = (x, y - 0.28, 2.5 + 0.3 * index)
            shade = np.asarray(colour) * (1.0 if index == lamp else 0.15)
            self.stage.place(bulb, Label.SIGN, place, colour=shade, glowing=bool(index == lamp))
