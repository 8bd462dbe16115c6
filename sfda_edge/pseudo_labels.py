"""What a teacher said of the whole target set, kept on disk: class probabilities at half size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfda_edge.data.loading import Progress, silent
from sfda_edge.files import write_atomically

LEVELS = 255
LABEL_BATCH = 4
Labelling = Callable[[Sequence[int]], Tensor]


class PseudoLabels:
    """Class probabilities of every target image, in steps of 1/255 on a grid of half the size.

    Args:
        path: a file of ``write_pseudo_labels``; it is mapped, not read whole.
    """

    def __init__(self, path: Path) -> None:
        self._stored = np.load(path, mmap_mode="r", allow_pickle=False)
        self.num_classes = self._stored.shape[1]
        self.histogram = self._histogram()

    def _histogram(self) -> Tensor:
        """Pixels of each most likely class and level of its probability, (C, 256)."""
        counts = np.zeros(self.num_classes * (LEVELS + 1), dtype=np.int64)
        for probabilities in self._stored:
            pairs = probabilities.argmax(0) * (LEVELS + 1) + probabilities.max(0)
            counts += np.bincount(pairs.ravel(), minlength=len(counts))
        return torch.from_numpy(counts).view(self.num_classes, LEVELS + 1)

    def read(self, indices: Sequence[int], size_hw: tuple[int, int]) -> Tensor:
        """Probabilities (N, C, H, W) float32 of images, resized bilinearly."""
        stored = torch.from_numpy(np.stack([self._stored[index] for index in indices]))
        return functional.interpolate(stored / LEVELS, size_hw, mode="bilinear")

    def thresholds(self, portion: float) -> Tensor:
        """Per class, the probability above which ``portion`` of its pixels lie, (C,).

        A threshold of each class's own keeps rare classes their share of the lesson, where one for
        all would teach road and sky alone (Zou et al., CBST, ECCV 2018).
        """
        above = self.histogram.flip(1).cumsum(1).flip(1)  # pixels at this level or more
        wanted = portion * self.histogram.sum(1, keepdim=True)
        levels = (above >= wanted).sum(1) - 1
        return levels.clamp_min(0).float() / LEVELS

    @property
    def class_shares(self) -> Tensor:
        """Of all pixels by their most likely class, (C,)."""
        counts = self.histogram.sum(1).double()
        return (counts / counts.sum()).float()


def write_pseudo_labels(
    path: Path, num_images: int, label: Labelling, progress: Progress = silent
) -> None:
    """Label all target images into ``path``, whole or not at all.

    Args:
        path: a ``.npy`` file of (N, C, h, w) uint8.
        num_images: how many there are.
        label: image numbers → class probabilities (N, C, h, w).
        progress: wraps the batches, of which there are ``num_label_batches``.

    Raises:
        RunError: the file cannot be written, or the disk is full.
    """

    def write(part: Path) -> None:
        starts = range(0, num_images, LABEL_BATCH)
        with part.open("wb") as file:
            for start in progress(starts):
                indices = range(start, min(start + LABEL_BATCH, num_images))
                levels = (label(list(indices)) * LEVELS).round().to(torch.uint8).cpu().numpy()
                if start == 0:
                    header = np.lib.format.header_data_from_array_1_0(levels)
                    header["shape"] = (num_images, *levels.shape[1:])
                    header["fortran_order"] = False
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(levels.tobytes())

    write_atomically(path, write)


def num_label_batches(num_images: int) -> int:
    """How many batches ``write_pseudo_labels`` makes of the images, for a progress bar."""
    return -(-num_images // LABEL_BATCH)
