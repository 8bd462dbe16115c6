"""Traffic: cars, vans, buses, people and cyclists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from panda3d.core import NodePath

from sfda_edge.streetsynth import geometry
from sfda_edge.streetsynth.ground import ROAD_Z
from sfda_edge.streetsynth.plan import Plan
from sfda_edge.streetsynth.stage import Label, Stage

GLASS = (0.09, 0.11, 0.14)
BLACK = (0.05, 0.05, 0.05)


@dataclass(frozen=True)
class Body:
    """A vehicle's side view. Outlines are (share of the length, metres up), front to the right."""

    length_m: tuple[float, float]
    width_m: float
    hull: tuple[tuple[float, float], ...]
    cabin: tuple[tuple[float, float], ...]
    roof: tuple[float, float, float]
    wheel_radius_m: float = 0.33


_HULL = (
    (-0.5, 0.28),
    (-0.5, 0.72),
    (-0.47, 0.9),
    (0.18, 0.92),
    (0.44, 0.76),
    (0.5, 0.6),
    (0.5, 0.28),
)
BODIES = {
    "hatchback": Body((3.6, 4.1), 1.7, hull=_HULL,
                      cabin=((-0.48, 0.88), (-0.38, 1.42), (0.02, 1.46), (0.24, 0.9)),
                      roof=(-0.38, 0.02, 1.44)),
    "saloon": Body((4.3, 4.9), 1.8, hull=_HULL,
                   cabin=((-0.36, 0.88), (-0.22, 1.38), (0.06, 1.4), (0.24, 0.9)),
                   roof=(-0.22, 0.06, 1.38)),
    "van": Body((4.8, 5.6), 2.0,
                hull=((-0.5, 0.3), (-0.5, 2.0), (0.22, 2.05), (0.42, 1.1), (0.5, 0.95), (0.5, 0.3)),
                cabin=((0.16, 1.25), (0.1, 1.9), (0.27, 1.86), (0.4, 1.18)),
                roof=(-0.49, 0.2, 2.03)),
    "bus": Body((8.0, 11.0), 2.45,
                hull=((-0.5, 0.35), (-0.5, 2.9), (0.49, 2.9), (0.5, 0.35)),
                cabin=((-0.485, 1.35), (-0.485, 2.3), (0.505, 2.3), (0.505, 1.35)),
                roof=(-0.5, 0.49, 2.9), wheel_radius_m=0.45),
}  # fmt: skip


class Traffic:
    """Puts moving and parked traffic on a street; all of it depends on ``layout``."""

    def __init__(self, stage: Stage, plan: Plan, layout: np.random.Generator) -> None:
        self.stage, self.plan, self.random = stage, plan, layout

    def build(self) -> None:
        """Put all traffic on the stage."""
        draw, lane = self.random, self.plan.road_width / 4
        for _ in range(draw.poisson(2.2)):
            x = lane + draw.normal() * 0.2
            self._vehicle(x, draw.uniform(9, 90), 0, draw.uniform(0, 0.9))
        for _ in range(draw.poisson(2.2)):
            x = -lane + draw.normal() * 0.2
            self._vehicle(x, draw.uniform(10, 100), 180, -draw.uniform(0.1, 0.9))
        for side in (-1, 1):
            if draw.random() < 0.4:
                self._parked(side)
        for _ in range(draw.poisson(4)):
            self._pedestrian()
        for _ in range(draw.poisson(1.3)):
            self._cyclist()

    def _parked(self, side: int) -> None:
        draw = self.random
        for y in _positions(draw, 4, 90, (5.5, 8)):
            if draw.random() < 0.7:
                x = side * (self.plan.road_width / 2 - 1.0)
                self._vehicle(x, y, draw.choice([0, 180]), 0.0, parked=True)

    def _vehicle(
        self, x: float, y: float, heading_deg: float, speed: float, parked: bool = False
    ) -> None:
        draw = self.random
        shares = [0.5, 0.4, 0.1, 0.0] if parked else [0.42, 0.36, 0.12, 0.1]
        body = BODIES[draw.choice(list(BODIES), p=shares)]
        grey = np.ones(3) * draw.choice([0.06, 0.25, 0.5, 0.72, 0.9]) * draw.uniform(0.8, 1.05)
        paint = grey if draw.random() < 0.65 else draw.uniform(0.05, 0.75, 3)
        node = self.stage.group((x, y, ROAD_Z), heading_deg)
        length = draw.uniform(*body.length_m)
        self._coachwork(node, body, length, paint)
        self._wheels(node, body, length)
        self._lamps(node, body, length)
        self.stage.moving.append((node, speed))

    def _coachwork(self, node: NodePath, body: Body, length: float, paint: np.ndarray) -> None:
        stretch = np.array([length, 1.0])
        put = self.stage.place
        put(
            geometry.profile(body.hull * stretch, body.width_m), Label.CAR, colour=paint, under=node
        )
        cabin = geometry.profile(body.cabin * stretch, body.width_m * 0.9 + 0.1 * (length > 7))
        put(cabin, Label.CAR, colour=GLASS, under=node)
        back, front, height = body.roof
        roof = geometry.box((body.width_m * 0.86, (front - back) * length, 0.07))
        put(roof, Label.CAR, (0, (back + front) / 2 * length, height), colour=paint, under=node)
        shadow = geometry.ground(
            (-body.width_m * 0.55, body.width_m * 0.55), (-0.52 * length, 0.52 * length), 0.03
        )
        put(shadow, Label.ROAD, colour=(0, 0, 0, 0.55), under=node, glowing=True)

    def _wheels(self, node: NodePath, body: Body, length: float) -> None:
        for along in (-0.32, 0.31):
            for side in (-1, 1):
                place = (side * body.width_m * 0.46, along * length, body.wheel_radius_m)
                for radius, thick, colour in ((1.0, 0.24, BLACK), (0.55, 0.26, (0.5, 0.5, 0.52))):
                    tyre = geometry.tube(body.wheel_radius_m * radius, thick, 14, capped=True)
                    wheel = self.stage.place(tyre, Label.CAR, colour=colour, under=node)
                    wheel.setPos(place[0] - thick / 2, place[1], place[2])
                    wheel.setR(90)

    def _lamps(self, node: NodePath, body: Body, length: float) -> None:
        width, put = body.width_m, self.stage.place
        for side in (-1, 1):
            for end, colour in ((-1, (0.85, 0.06, 0.06)), (1, (0.97, 0.95, 0.85))):
                lamp = geometry.box((0.3, 0.05, 0.16))
                place = (side * width * 0.38, end * (length / 2 + 0.01), 0.58)
                put(lamp, Label.CAR, place, colour=colour, under=node, glowing=True)
        plate = geometry.box((0.5, 0.04, 0.12))
        put(plate, Label.CAR, (0, -length / 2 - 0.02, 0.5), colour=(0.85, 0.8, 0.4), under=node)

    def _pedestrian(self) -> None:
        draw, kerb = self.random, self.plan.road_width / 2
        side = int(draw.choice([-1, 1]))
        beside = side * (kerb + draw.uniform(0.4, self.plan.pavement_widths[(side + 1) // 2]))
        on_road = draw.random() < 0.1
        x = draw.uniform(-kerb, kerb) if on_road else beside
        node = self.stage.group(
            (x, draw.uniform(5, 50), ROAD_Z if on_road else 0), draw.uniform(0, 360)
        )
        node.setScale(draw.uniform(0.9, 1.08))
        self._person(node, Label.PEDESTRIAN, stride=draw.uniform(0.05, 0.3))
        self.stage.moving.append((node, draw.uniform(-0.08, 0.08)))

    def _person(self, node: NodePath, label: Label, stride: float, hip: float = 0.84) -> None:
        draw, put = self.random, self.stage.place
        trousers, coat, skin = (
            draw.uniform(0, 0.4, 3),
            draw.uniform(0, 0.7, 3),
            draw.uniform((0.35, 0.25, 0.2), (0.85, 0.68, 0.58)),
        )
        for side in (-1, 1):
            leg = put(
                geometry.box((0.15, 0.18, hip)),
                label,
                (side * 0.1, 0, 0),
                colour=trousers,
                under=node,
            )
            leg.setPos(side * 0.1, side * stride, 0)
            leg.setP(side * stride * 60)
            arm = put(
                geometry.box((0.1, 0.12, 0.6)),
                label,
                (side * 0.27, 0, hip - 0.05),
                colour=coat,
                under=node,
            )
            arm.setP(-side * stride * 60)
        torso = geometry.blob(draw, (0.23, 0.15, 0.36), 0.05, 8)
        put(torso, label, (0, 0, hip + 0.3), colour=coat, under=node)
        put(
            geometry.blob(draw, (0.1, 0.12, 0.15), 0.04, 8),
            label,
            (0, 0, hip + 0.8),
            colour=skin,
            under=node,
        )
        hair = geometry.blob(draw, (0.11, 0.125, 0.09), 0.04, 8)
        put(hair, label, (0, 0, hip + 0.88), colour=draw.uniform(0.05, 0.4, 3), under=node)

    def _cyclist(self) -> None:
        draw, side = self.random, int(self.random.choice([-1, 1]))
        x = side * (self.plan.road_width / 2 - draw.uniform(0.5, 1.3))
        node = self.stage.group((x, draw.uniform(6, 40), ROAD_Z), 0 if side > 0 else 180)
        self._person(node, Label.BICYCLIST, stride=0.1, hip=0.95)
        put, frame = self.stage.place, draw.uniform(0, 0.6, 3)
        for along in (-0.52, 0.52):
            wheel = geometry.ring(0.26, 0.34)
            put(wheel, Label.BICYCLIST, (0, along, 0.34), colour=BLACK, under=node)
        outline = [(-0.5, 0.3), (-0.15, 0.75), (0.4, 0.8), (0.5, 0.35), (0.0, 0.3)]
        put(geometry.profile(outline, 0.04), Label.BICYCLIST, colour=frame, under=node)
        bar = geometry.box((0.5, 0.05, 0.05))
        put(bar, Label.BICYCLIST, (0, 0.42, 0.95), colour=BLACK, under=node)
        self.stage.moving.append((node, 0.25 * side))


def _positions(
    random: np.random.Generator, low: float, high: float, step: tuple[float, float]
) -> Iterator[float]:
    """Places along the street from ``low`` to ``high``, a random step apart."""
    y = random.uniform(low, low + 11)
    while y < high:
        yield y
        y += random.uniform(*step)
