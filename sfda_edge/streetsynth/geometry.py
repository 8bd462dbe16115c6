"""Meshes that street scenes are built from: boxes, profiles, tubes, discs, blobs and panels.

Axes: x to the right, y ahead, z up; metres. Every function returns a panda3d ``GeomNode``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from panda3d.core import Geom, GeomNode, GeomTriangles, GeomVertexData, GeomVertexFormat

_AXES = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])  # the normal's axis, then the face's two
_QUAD = np.array([[0, 1, 2], [0, 2, 3]])


def mesh(vertices: ArrayLike, faces: ArrayLike, normals: ArrayLike, uvs: ArrayLike) -> GeomNode:
    """A mesh: vertices (V, 3), triangles (F, 3), normals (V, 3), texture coordinates (V, 2)."""
    columns = [np.asarray(part, np.float32) for part in (vertices, normals, uvs)]
    rows = np.ascontiguousarray(np.hstack(columns))
    data = GeomVertexData("mesh", GeomVertexFormat.getV3n3t2(), Geom.UHStatic)
    data.uncleanSetNumRows(len(rows))
    data.modifyArrayHandle(0).copyDataFrom(rows.tobytes())
    triangles = GeomTriangles(Geom.UHStatic)
    for a, b, c in np.asarray(faces):
        triangles.addVertices(int(a), int(b), int(c))
    geom = Geom(data)
    geom.addPrimitive(triangles)
    node = GeomNode("mesh")
    node.addGeom(geom)
    return node


def _quads(corners: np.ndarray, normals: np.ndarray, uvs: np.ndarray) -> GeomNode:
    """Independent quads: corners (Q, 4, 3), normals (Q, 3), texture coordinates (Q, 4, 2)."""
    count = len(corners)
    faces = (_QUAD[None] + 4 * np.arange(count)[:, None, None]).reshape(-1, 3)
    return mesh(
        corners.reshape(-1, 3), faces, np.repeat(normals, 4, axis=0), np.reshape(uvs, (-1, 2))
    )


def box(size: ArrayLike, texture_per_m: float = 0.0) -> GeomNode:
    """A box of ``size`` (x, y, z) standing on the origin; by default one texture a face."""
    extent = np.asarray(size, float)
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    corners, normals, uvs = [], [], []
    for axis, first, second in _AXES:
        for sign in (1, -1):
            corner = np.zeros((4, 3))
            corner[:, axis] = sign * extent[axis] / 2
            corner[:, first] = square[:, 0] * extent[first]
            corner[:, second] = square[:, 1] * extent[second]
            corners.append(corner + np.array([0, 0, extent[2] / 2]))
            normals.append(np.eye(3)[axis] * sign)
            scale = extent[[first, second]] * texture_per_m if texture_per_m else np.ones(2)
            uvs.append((square + 0.5) * scale)
    return _quads(np.array(corners), np.array(normals), np.array(uvs))


def ground(x_range: tuple[float, float], y_range: tuple[float, float], z: float) -> GeomNode:
    """A horizontal rectangle whose texture repeats every 4 m."""
    (x0, x1), (y0, y1) = x_range, y_range
    corners = np.array([[[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]]])
    return _quads(corners, np.array([[0, 0, 1]]), corners[..., :2] / 4)


def panels(rectangles: ArrayLike, side: float) -> GeomNode:
    """Upright rectangles (P, 4) of (y0, y1, z0, z1) in the plane x = 0, facing ``side`` (±1)."""
    y0, y1, z0, z1 = np.asarray(rectangles, float).T
    zero = np.zeros_like(y0)
    corners = np.stack(
        [np.stack(c, -1) for c in ((zero, y0, z0), (zero, y1, z0), (zero, y1, z1), (zero, y0, z1))],
        axis=1,
    )
    uvs = np.stack([corners[..., 1] - y0[:, None], corners[..., 2] - z0[:, None]], -1)
    uvs /= np.array([2.0, 1.0]) * [1.0, max(float((z1 - z0).max()), 1e-6)]
    return _quads(corners, np.tile([[side, 0.0, 0.0]], (len(y0), 1)), uvs)


def profile(outline_yz: ArrayLike, width: float) -> GeomNode:
    """A side view (P, 2) of (y, z), star-shaped about its mean, drawn out to ``width`` in x."""
    outline = np.asarray(outline_yz, float)
    following = np.roll(outline, -1, axis=0)
    edge = following - outline
    skin = np.stack(
        [
            np.insert(p, 0, x, axis=1)
            for p, x in (
                (outline, -width / 2),
                (outline, width / 2),
                (following, width / 2),
                (following, -width / 2),
            )
        ],
        axis=1,
    )
    outward = np.stack([np.zeros(len(edge)), edge[:, 1], -edge[:, 0]], -1)
    middle = outline.mean(0)
    turn = np.sign(np.sum(outward[:, 1:] * ((outline + following) / 2 - middle), axis=1))
    outward *= (turn / np.maximum(np.linalg.norm(outward, axis=1), 1e-9))[:, None]
    corners, normals = [skin], [outward]
    for side in (-1, 1):
        fan = np.stack([outline, following, np.broadcast_to(middle, outline.shape)], axis=1)
        fan = np.concatenate([fan, fan[:, 2:]], axis=1)
        corners.append(np.insert(fan, 0, side * width / 2, axis=2))
        normals.append(np.tile([[side, 0.0, 0.0]], (len(outline), 1)))
    all_corners = np.concatenate(corners)
    return _quads(all_corners, np.concatenate(normals), all_corners[..., 1:])


def tube(radius: float, height: float, sides: int = 8, capped: bool = False) -> GeomNode:
    """A round tube standing on the origin, with flat ends when ``capped``."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    rim = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], -1)
    vertices = [rim * radius, rim * radius + [0, 0, height]]
    normals = [rim, rim]
    low, high = np.arange(sides), np.arange(sides) + sides + 1
    faces = [np.stack([low, low + 1, high], -1), np.stack([low + 1, high + 1, high], -1)]
    if capped:
        for z, up in ((0.0, -1.0), (height, 1.0)):
            base = sum(len(v) for v in vertices)
            vertices.append(np.vstack([rim * radius + [0, 0, z], [[0, 0, z]]]))
            normals.append(np.tile([[0, 0, up]], (sides + 2, 1)))
            faces.append(np.stack([low + base, low + base + 1, 0 * low + base + sides + 1], -1))
    points = np.vstack(vertices)
    return mesh(points, np.vstack(faces), np.vstack(normals), points[:, [0, 2]])


def ring(inner: float, outer: float) -> GeomNode:
    """A flat ring in the plane x = 0 about the origin: a bicycle's wheel."""
    sides = 14
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    rim = np.stack([np.zeros_like(angle), np.cos(angle), np.sin(angle)], -1)
    vertices = np.vstack([rim * inner, rim * outer])
    low, high = np.arange(sides), np.arange(sides) + sides + 1
    faces = np.vstack([np.stack([low, low + 1, high], -1), np.stack([low + 1, high + 1, high], -1)])
    return mesh(vertices, faces, np.tile([[1.0, 0, 0]], (len(vertices), 1)), vertices[:, 1:])


def blob(
    random: np.random.Generator, radii: ArrayLike, roughness: float = 0.25, detail: int = 9
) -> GeomNode:
    """A rounded lump with the given radii (x, y, z) about the origin: foliage, heads, bodies."""
    across, down = detail, max(detail - 2, 4)
    turn, fall = np.meshgrid(
        np.linspace(0, 2 * np.pi, across + 1), np.linspace(0, np.pi, down + 1), indexing="xy"
    )
    directions = np.stack(
        [np.cos(turn) * np.sin(fall), np.sin(turn) * np.sin(fall), np.cos(fall)], -1
    ).reshape(-1, 3)
    phase = random.uniform(0, 2 * np.pi, 3)
    bumps = np.sin(3 * directions[:, 0] + phase[0]) * np.cos(4 * directions[:, 2] + phase[1])
    swell = 1 + roughness * (bumps + 0.6 * np.sin(5 * directions[:, 1] + phase[2]))
    corner = (np.arange(down)[:, None] * (across + 1) + np.arange(across)).reshape(-1)
    faces = np.vstack(
        [
            np.stack([corner, corner + across + 1, corner + 1], -1),
            np.stack([corner + 1, corner + across + 1, corner + across + 2], -1),
        ]
    )
    uvs: Any = np.stack([turn / (2 * np.pi) * 3, fall / np.pi * 3], -1).reshape(-1, 2)
    return mesh(directions * swell[:, None] * np.asarray(radii), faces, directions, uvs)
