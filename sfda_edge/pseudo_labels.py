"""Pseudo-labels of the whole target set, kept on disk: what a teacher said, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfda_edge.data.loading import Progress, silent
from sfda_edge.files import write_atomically

Labelling = Callable[[Sequence[int]], Tensor]
_LEVELS = 255
_LABEL_BATCH = 4


class PseudoLabels:
    """The most likely class and its probability in every pixel of every target image.

    Args:
        path: a ``.npy`` file of ``write_pseudo_labels``; it is mapped, not read whole.
        num_classes: of the label maps.
    """

    def __init__(self, path: Path, num_classes: int) -> None:
        self.num_classes = num_classes
        self._stored = np.load(path, mmap_mode="r", allow_pickle=False)
        self.histogram = self._histogram()

    def _histogram(self) -> Tensor:
        counts = torch.zeros(self.num_classes * (_LEVELS + 1), dtype=torch.int64)
        for labels, levels in self._stored:
            pairs = labels.astype(np.int64) * (_LEVELS + 1) + levels
            counts += torch.from_numpy(np.bincount(pairs.ravel(), minlength=len(counts)))
        return counts.view(self.num_classes, _LEVELS + 1)

    def read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Labels (N, H, W) int64 and their probabilities (N, H, W) float32."""
        stored = torch.from_numpy(np.stack([self._stored[index] for index in indices]))
        return stored[:, 0].long(), stored[:, 1].float() / _LEVELS

    def thresholds(self, portion: float) -> Tensor:
        """Per class, the probability above which ``portion`` of its pixels lie, (C,).

        A threshold of each class's own keeps rare classes their share of the lesson, where one for
        all would teach road and sky alone (Zou et al., CBST, ECCV 2018).
        """
        above = self.histogram.flip(1).cumsum(1).flip(1)  # pixels at this level or more
        wanted = portion * self.histogram.sum(1, keepdim=True)
        levels = (above >= wanted).sum(1) - 1
        return levels.clamp_min(0).float() / _LEVELS

    @property
    def class_shares(self) -> Tensor:
        """Of all pixels, (C,)."""
        counts = self.histogram.sum(1).double()
        return counts / counts.sum()


def write_pseudo_labels(
    path: Path,
    num_images: int,
    label: Labelling,
    progress: Progress = silent,
) -> None:
    """Label all target images into ``path``, whole or not at all.

    Args:
        path: a ``.npy`` file.
        num_images: how many there are.
        label: image numbers → class probabilities (N, C, H, W).
        progress: wraps the batches.

    Raises:
        RunError: the file cannot be written, or the disk is full.
    """

    def write(part: Path) -> None:
        starts = range(0, num_images, _LABEL_BATCH)
        with part.open("wb") as file:
            for start in progress(starts):
                indices = range(start, min(start + _LABEL_BATCH, num_images))
                best = label(list(indices)).max(1)
                levels = (best.values * _LEVELS).round().to(torch.uint8)
                batch = torch.stack([best.indices.to(torch.uint8), levels], 1).cpu().numpy()
                if start == 0:
                    header = np.lib.format.header_data_from_array_1_0(batch)
                    header["shape"] = (num_images, *batch.shape[1:])
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(batch.tobytes())

    write_atomically(path, write)


def num_label_batches(num_images: int) -> int:
    """How many batches ``write_pseudo_labels`` makes of the images, for a progress bar."""
    return -(-num_images // _LABEL_BATCH)
