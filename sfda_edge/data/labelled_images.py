"""LabelledImages: labelled images, read once to be checked, kept where memory allows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from runtime.bundle.labels import LabelSpace
from runtime.images import ImageError, resize_image, resize_label_map
from sfda_edge.data.images import ImageSet, Sample, checked_label_map
from sfda_edge.data.label_counts import LabelCounts
from sfda_edge.data.loading import LoadedImage, read_outcomes, require_usable
from sfda_edge.data.target import READERS, kept_image_bytes
from sfda_edge.errors import DataError
from sfda_edge.runs.progress import Progress, silent

Pair = tuple[np.ndarray, np.ndarray]


class LabelledImages:
    """Images (H, W, 3) and label maps (H, W), both uint8 at the input size.

    Attributes:
        sha256: of all images and label maps.

    Args:
        images: labelled.
        space: what the labels mean.
        size_hw: the network's input size.
        skip_bad: leave damaged samples out.
        progress: wraps the first reading.
        memory_bytes: how much may be kept; what does not fit is decoded again when it is needed.

    Raises:
        DataError: samples are damaged, or labels say nothing, as ``require_classes`` has it.
    """

    def __init__(
        self,
        images: ImageSet,
        space: LabelSpace,
        size_hw: tuple[int, int],
        *,
        skip_bad: bool = False,
        progress: Progress = silent,
        memory_bytes: int | None = None,
    ) -> None:
        self._space, self._size_hw = space, size_hw
        most_bytes = kept_image_bytes() if memory_bytes is None else memory_bytes
        self._most_kept = most_bytes // (4 * size_hw[0] * size_hw[1])  # three channels and a label
        self._kept: dict[int, Pair] = {}
        self._samples: list[Sample] = []
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="labelled")
        problems, counts, digest = [], LabelCounts(space), hashlib.sha256()
        for sample, outcome in zip(
            images.samples, progress(read_outcomes(images.samples, space)), strict=True
        ):
            if not isinstance(outcome, LoadedImage):
                problems.append(outcome)
                continue
            assert outcome.label_map is not None
            counts.update(outcome.label_map)
            pair = self._small(outcome.image, outcome.label_map)
            for part in pair:
                digest.update(part.tobytes())
            if len(self._kept) < self._most_kept:
                self._kept[len(self._samples)] = pair
            self._samples.append(sample)
        require_usable(problems, len(images), skip_bad)
        counts.require_classes(images.title)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Pair]:
        for index in range(len(self)):
            yield self._pair(index)

    def ahead(self, indices: Sequence[int]) -> ImagesAhead:
        """Begin to read images and labels; ``pair`` of the batch waits for them."""
        return ImagesAhead([self._pool.submit(self._pair, index) for index in indices])

    def _pair(self, index: int) -> Pair:
        if index in self._kept:
            return self._kept[index]
        sample = self._samples[index]
        try:
            image = sample.image()
            return self._small(image, checked_label_map(sample, image, self._space))
        except (ImageError, OSError) as error:
            raise DataError(
                f"{sample.name} could be read when the run began and cannot be read now: {error}"
            ) from None

    def _small(self, image: np.ndarray, label_map: np.ndarray) -> Pair:
        return resize_image(image, self._size_hw), resize_label_map(label_map, self._size_hw)


class ImagesAhead:
    """Images and label maps that are being read."""

    def __init__(self, futures: list[Future[Pair]]) -> None:
        self._futures = futures

    def pair(self) -> tuple[Tensor, Tensor]:
        """Wait for them: images (N, 3, H, W) and label maps (N, H, W), uint8."""
        images, label_maps = zip(*(future.result() for future in self._futures), strict=True)
        return (
            torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack(label_maps)),
        )
