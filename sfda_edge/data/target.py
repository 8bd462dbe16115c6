"""The target images of an adaptation: read once to be checked, kept in memory where they fit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from runtime.images import ImageError, resize_image
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.data.loading import Progress, read_all, silent
from sfda_edge.errors import DataError

READERS = 2


def _memory_bytes() -> int:
    """4 GiB for images, or a quarter of what the machine has."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        installed = 16 << 30
    return min(4 << 30, installed // 4)


class TargetImages:
    """Target images by number, at the input size or any other; each read decodes ahead.

    Args:
        images: what to read.
        size_hw: the network's input size.
        skip_bad: leave damaged images out.
        progress: wraps the first reading.
        memory_bytes: how much may be kept; what does not fit is decoded again when it is needed.
            None for 4 GiB, or a quarter of the machine's memory where that is less.

    Raises:
        DataError: as ``read_all``; later too, from whatever asks for an image that is gone.

    Attributes:
        sha256: of all images at the input size, hexadecimal.
    """

    def __init__(
        self,
        images: ImageSet,
        size_hw: tuple[int, int],
        skip_bad: bool = False,
        progress: Progress = silent,
        memory_bytes: int | None = None,
    ) -> None:
        self.size_hw = size_hw
        self._samples: list[Sample] = []
        self._kept: list[np.ndarray] = []
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="target")
        by_name = {sample.name: sample for sample in images.samples}
        most_bytes = _memory_bytes() if memory_bytes is None else memory_bytes
        fits = most_bytes // (3 * size_hw[0] * size_hw[1])
        digest = hashlib.sha256()
        for number, loaded in enumerate(progress(read_all(images, None, skip_bad))):
            small = resize_image(loaded.image, size_hw)
            # As (3, H, W), which is how recorded runs were hashed.
            digest.update(np.ascontiguousarray(small.transpose(2, 0, 1)).tobytes())
            self._samples.append(by_name[loaded.name])
            if number < fits:
                self._kept.append(small)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._samples)

    def ahead(self, indices: Sequence[int], size_hw: tuple[int, int] | None = None) -> TargetBatch:
        """Begin to read images; they are there when the batch's ``images`` is asked for."""
        size = size_hw or self.size_hw
        return TargetBatch([self._pool.submit(self._image, index, size) for index in indices])

    def images(self, indices: Sequence[int], size_hw: tuple[int, int] | None = None) -> Tensor:
        """Images (N, 3, H, W) uint8, channels last in memory; at the input size by default."""
        return self.ahead(indices, size_hw).images()

    def _image(self, index: int, size_hw: tuple[int, int]) -> np.ndarray:
        if size_hw == self.size_hw and index < len(self._kept):
            return self._kept[index]
        sample = self._samples[index]
        try:
            return resize_image(sample.image(), size_hw)
        except (ImageError, OSError) as error:
            raise DataError(
                f"{sample.name} could be read when the run began and cannot now: {error}; put it "
                "back, and begin again or, after the first step, go on with --resume"
            ) from None

    def spread(self, count: int) -> list[int]:
        """At most ``count`` image numbers, evenly over the set."""
        positions = np.linspace(0, len(self) - 1, min(count, len(self)))
        return [int(position) for position in positions.round()]


class TargetBatch:
    """Images on their way."""

    def __init__(self, futures: list[Future[np.ndarray]]) -> None:
        self._futures = futures

    def images(self) -> Tensor:
        """Wait, and stack them: (N, 3, H, W) uint8."""
        stacked = np.stack([future.result() for future in self._futures])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2)
