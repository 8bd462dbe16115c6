"""Pictures of what SFDA's parts do: generated images, attention, easy and hard patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from runtime.overlay import Overlay
from sfda_edge.methods.sfda.patches import easy_and_hard
from sfda_edge.models import ModelSpec
from sfda_edge.report.heat import heat
from sfda_edge.report.page import Section, picture_url

_SHOWN = 4
_GAP_PX = 4
_EASY, _HARD = (46, 160, 67), (207, 34, 46)


def fake_section(fakes: Tensor, probabilities: Tensor, spec: ModelSpec) -> Section:
    """Generated images (N, 3, H, W) in [0, 255] above what the source model sees in them."""
    overlay = Overlay(spec.answer_space, legend=False)
    pictures = [_picture(fake) for fake in fakes[:_SHOWN]]
    label_maps = probabilities[:_SHOWN].max(1).indices.to(torch.uint8).cpu().numpy()
    drawn = [
        overlay.draw(image, labels) for image, labels in zip(pictures, label_maps, strict=True)
    ]
    text = (
        "Noise made into images whose statistics are those that the source model remembers; below, "
        "its own answers. They need not please people."
    )
    return Section("Generated images", text, picture=picture_url(_grid([pictures, drawn])))


def attention_section(images: Tensor, maps: Tensor, features_hw: Sequence[int]) -> Section:
    """Which positions look like the marked one: row of the spatial attention map (E5).

    Args:
        images: (N, 3, H, W) uint8.
        maps: (N, M, M) of the student on these images.
        features_hw: M as height and width.
    """
    height, width = features_hw
    marked = (height * 3 // 4) * width + width // 2  # the road ahead, in most cameras
    pictures = [_picture(image) for image in images[:_SHOWN]]
    heats = []
    for row, picture in zip(maps[:_SHOWN, marked], pictures, strict=True):
        likeness = functional.interpolate(
            row.view(1, 1, height, width).float().cpu(), picture.shape[:2], mode="bilinear"
        )[0, 0].numpy()
        low, high = likeness.min(), likeness.max()
        drawn = heat((likeness - low) / max(high - low, 1e-12))
        heats.append(_marked(drawn, height * 3 // 4, width // 2, (height, width)))
    text = "How much each position looks like the marked one to the student's deepest features."
    return Section("Attention", text, picture=picture_url(_grid([pictures, heats])))


def patch_section(images: Tensor, entropies: Tensor, per_side: int) -> Section:
    """The patches of a batch, framed green where easy and red where hard (E13).

    Args:
        images: (N, 3, H, W) uint8.
        entropies: (N, K²) of these images.
        per_side: K.
    """
    easy, hard = easy_and_hard(entropies)
    positions = torch.arange(entropies.shape[1], device=easy.device)
    frames = torch.zeros_like(entropies, dtype=torch.long)
    frames[easy, positions], frames[hard, positions] = 1, 2
    pictures = [
        _framed(_picture(image), kinds.view(per_side, per_side).tolist())
        for image, kinds in zip(images[:_SHOWN], frames[:_SHOWN], strict=False)
    ]
    text = (
        "At every position the half of the batch that is surest is easy (green), the other half "
        "hard (red); of an odd number the middle one is neither."
    )
    return Section("Patches", text, picture=picture_url(_grid([pictures])))


def _picture(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).round().to(torch.uint8).cpu().numpy())


def _grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    gaps = ((0, _GAP_PX), (0, _GAP_PX), (0, 0))
    padded = [[np.pad(p, gaps, constant_values=255) for p in row] for row in rows]
    return np.vstack([np.hstack(row) for row in padded])


def _marked(picture: np.ndarray, row: int, column: int, cells_hw: tuple[int, int]) -> np.ndarray:
    """A white square where the marked cell is."""
    height, width = (side / cells for side, cells in zip(picture.shape[:2], cells_hw, strict=True))
    top, left = int(row * height), int(column * width)
    picture[top : int(top + height), left : int(left + width)] = 255
    return picture


def _framed(picture: np.ndarray, kinds: list[list[int]]) -> np.ndarray:
    """Frames around the cells: 1 easy, 2 hard, 0 none."""
    cells = len(kinds)
    height, width = picture.shape[0] // cells, picture.shape[1] // cells
    for row in range(cells):
        for column in range(cells):
            cell = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
            if not kinds[row][column]:
                continue
            colour = (_EASY, _HARD)[kinds[row][column] - 1]
            cell[:3], cell[-3:], cell[:, :3], cell[:, -3:] = colour, colour, colour, colour
    return picture
