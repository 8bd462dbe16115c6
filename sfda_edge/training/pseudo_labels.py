"""Soft labels of the whole target set, kept on disk: class probabilities at half size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfda_edge.runs.distributed import local_share, num_processes, rank, reduced, wait_for_all
from sfda_edge.runs.files import write_atomically
from sfda_edge.runs.progress import Progress, silent
from sfda_edge.task import AdaptationTask

LEVELS = 255
LABEL_BATCH = 4
Labelling = Callable[[Sequence[int]], Tensor]


class PseudoLabels:
    """Class probabilities of every target image, in steps of 1/255 on a grid of half the size.

    Args:
        paths: files of ``write_pseudo_labels``, each with every n-th image; mapped, not read whole.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._parts = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
        self.num_classes = self._parts[0].shape[1]
        self.histogram = self._histogram()

    def _histogram(self) -> Tensor:
        """Pixels of each most likely class and level of its probability, (C, 256)."""
        counts = np.zeros(self.num_classes * (LEVELS + 1), dtype=np.int64)
        for probabilities in chain(*local_share(self._parts)):  # each process counts its file
            pairs = probabilities.argmax(0) * (LEVELS + 1) + probabilities.max(0)
            counts += np.bincount(pairs.ravel(), minlength=len(counts))
        (total,) = reduced(torch.from_numpy(counts))
        return total.view(self.num_classes, LEVELS + 1)

    def read(
        self, indices: Sequence[int], size_hw: tuple[int, int], device: torch.device
    ) -> Tensor:
        """Probabilities (N, C, H, W) float32 of images, resized bilinearly on the device."""
        count = len(self._parts)
        stored = np.stack([self._parts[index % count][index // count] for index in indices])
        levels = torch.from_numpy(stored).to(device)
        return functional.interpolate(levels / LEVELS, size_hw, mode="bilinear")

    def thresholds(self, portion: float) -> Tensor:
        """Per class, the probability above which ``portion`` of its pixels lie, (C,).

        With a threshold of its own each class keeps its share of the labels; one threshold for all
        would keep little but road and sky (Zou et al., CBST, ECCV 2018).
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


def sharpened(probabilities: Tensor, power: float) -> Tensor:
    """Probabilities (N, C, H, W) to a power, scaled to sum to 1 again; all 0 stays 0.

    A power of 1 changes nothing, a large one leaves the most likely class alone.
    """
    highest = probabilities.amax(1, keepdim=True).clamp_min(1e-12)
    raised = (probabilities / highest).pow(power)
    return raised / raised.sum(1, keepdim=True).clamp_min(1e-12)


def label_target(
    task: AdaptationTask, name: str, label: Labelling, keep: bool = False
) -> PseudoLabels:
    """Label all target images, each process its share, into ``work_dir/name-….npy``.

    Args:
        task: the target.
        name: of the files.
        label: image indices → class probabilities (N, C, h, w).
        keep: use the files of an earlier part of the run.

    Raises:
        RunError: a file cannot be written, or the disk is full.
    """
    count = num_processes()
    paths = [task.work_dir / f"{name}-{part}of{count}.npy" for part in range(count)]
    share = local_share(range(len(task.target)))
    if not (keep and paths[rank()].exists()):
        bar = task.bars(f"label the target ({name})", -(-len(share) // LABEL_BATCH))
        write_pseudo_labels(paths[rank()], share, label, bar)
    wait_for_all()  # for those whose share takes longer
    return PseudoLabels(paths)


def label_bytes(task: AdaptationTask) -> int:
    """What the labels of the whole target take on disk."""
    height, width = task.half_hw
    return len(task.target) * task.num_classes * height * width


def write_pseudo_labels(
    path: Path, images: Sequence[int], label: Labelling, progress: Progress = silent
) -> None:
    """Label images into ``path``, whole or not at all.

    Args:
        path: a ``.npy`` file of (N, C, h, w) uint8.
        images: their indices.
        label: image indices → class probabilities (N, C, h, w).
        progress: wraps the batches.

    Raises:
        RunError: the file cannot be written, or the disk is full.
    """

    def write(part: Path) -> None:
        with part.open("wb") as file:
            for start in progress(range(0, len(images), LABEL_BATCH)):
                batch = label(images[start : start + LABEL_BATCH])
                levels = (batch * LEVELS).round().to(torch.uint8).cpu().numpy()
                if start == 0:
                    shape = (len(images), *levels.shape[1:])
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(levels.tobytes())

    write_atomically(path, write)
