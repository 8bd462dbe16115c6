"""Stage: a scene graph in which every node has a class."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from panda3d.core import GeomNode, NodePath, Texture, TransparencyAttrib

Numbers = Sequence[float] | np.ndarray


class Label(IntEnum):
    """CamVid's eleven classes, in the order of the SegNet release."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10


class Stage:
    """One scene: its root, and the things in it that move (node, metres ahead per frame)."""

    def __init__(self, root: NodePath) -> None:
        self.root = root
        self.moving: list[tuple[NodePath, float]] = []

    def group(self, position: Numbers, heading_deg: float = 0.0) -> NodePath:
        """An empty node to put the parts of one object under."""
        node = self.root.attachNewNode("group")
        node.setPos(*map(float, position))  # type: ignore[call-overload]
        node.setH(float(heading_deg))
        return node

    def place(
        self,
        shape: GeomNode,
        label: Label,
        position: Numbers = (0, 0, 0),
        *,
        colour: Numbers | None = None,
        texture: Texture | None = None,
        under: NodePath | None = None,
        glowing: bool = False,
    ) -> NodePath:
        """Put a shape into the scene: colours in [0, 1], alpha as a fourth value."""
        node = (under or self.root).attachNewNode(shape)
        node.setPos(*map(float, position))  # type: ignore[call-overload]
        node.setTag("label", str(int(label)))
        node.setTwoSided(True)
        if texture is not None:
            node.setTexture(texture)
            if texture.getNumComponents() == 4:
                node.setTransparency(TransparencyAttrib.MBinary)
        if colour is not None:
            channels = [float(c) for c in colour]
            node.setColor(*channels, *[1.0][: 4 - len(channels)])
            if len(channels) == 4:
                node.setTransparency(TransparencyAttrib.MAlpha)
        if glowing:
            node.setLightOff(10)
        return node
