"""TargetImages: the images of an adaptation, read once to be checked, kept where memory allows."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from runtime.files import printable_line
from runtime.images import ImageError, resize_image
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.data.loading import LoadedImage, read_outcomes, require_usable
from sfda_edge.errors import DataError
from sfda_edge.runs.distributed import all_objects, local_share, num_processes
from sfda_edge.runs.progress import Progress, silent

logger = logging.getLogger(__name__)
READERS = 2
# Grey levels, of a channel, below which a picture shows nothing: a lens cap, a lost signal. Sensor
# noise averages out in the resize; fog has a deviation of ten and more, a lamp at night the range.
_LEAST_DEVIATION, _LEAST_RANGE = 2.0, 32
_MOST_BYTES = 4 << 30


def kept_image_bytes() -> int:
    """4 GiB for images, or a quarter of the memory; shared by the processes of this machine."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        installed = 16 << 30
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if num_processes() > 1 else 1
    return min(_MOST_BYTES, installed // 4) // here


def image_bytes(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as the bytes that are hashed: those of (3, H, W), as in recorded runs."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes()


def listed_name(name: str) -> str:
    """An image's name as one line of text; control characters and broken bytes become escapes."""
    return printable_line(name)


def is_empty(image: np.ndarray) -> bool:
    """Whether an image (H, W, 3) uint8 shows nothing but a single colour."""
    flat = image.reshape(-1, image.shape[2])
    ranges = flat.max(0).astype(int) - flat.min(0)
    return bool(flat.std(0).max() < _LEAST_DEVIATION and ranges.max() < _LEAST_RANGE)


class TargetImages:
    """Target images by index, at the input size or any other; each read decodes ahead.

    Of several processes each checks its share of the set; it keeps what it has read.

    Args:
        images: what to read.
        size_hw: the network's input size.
        skip_bad: leave damaged images out.
        progress: wraps the first reading.
        memory_bytes: how much may be kept; what does not fit is decoded again when it is needed.
            None for 4 GiB, or a quarter of the machine's memory where that is less, divided by the
            processes of this machine.

    Raises:
        DataError: images are damaged, all empty or all the same; later too, from whatever asks for
            an image that is gone.

    Attributes:
        sha256: hash of the hashes of all images at the input size, hexadecimal.
        num_decoded: how many images this process has decoded so far.
    """

    def __init__(
        self,
        images: ImageSet,
        size_hw: tuple[int, int],
        *,
        skip_bad: bool = False,
        progress: Progress = silent,
        memory_bytes: int | None = None,
    ) -> None:
        self.size_hw = size_hw
        self.num_decoded = 0
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="target")
        most_bytes = kept_image_bytes() if memory_bytes is None else memory_bytes
        self._most_kept = most_bytes // (3 * size_hw[0] * size_hw[1])
        self._samples: list[Sample] = list(images.samples)
        digests, stream = self._checked(progress, skip_bad)
        self._digests = digests
        self.sha256 = hashlib.sha256("".join(digests).encode()).hexdigest()
        self._stream_sha256 = stream

    def _checked(self, progress: Progress, skip_bad: bool) -> tuple[list[str], str]:
        """Read every image once, each process its share; leave out damaged ones and empty ones.

        Returns:
            each image's hash in order, and the hash of all their bytes, empty of several processes.
        """
        share = list(local_share(range(len(self._samples))))
        outcomes = read_outcomes([self._samples[index] for index in share], None)
        found: list[tuple[int, str]] = []
        problems: list[tuple[int, str]] = []
        empty: list[int] = []
        stream = hashlib.sha256()
        for index, outcome in zip(share, progress(outcomes), strict=True):
            if not isinstance(outcome, LoadedImage):
                problems.append((index, outcome))
                continue
            small = resize_image(outcome.image, self.size_hw)
            if is_empty(small):
                empty.append(index)
                continue
            content = image_bytes(small)
            stream.update(content)
            found.append((index, hashlib.sha256(content).hexdigest()))
            self._keep(index, small)
        self.num_decoded += len(share)
        everything = all_objects((found, problems, empty))
        bad = sorted(problem for _, some, _ in everything for problem in some)
        require_usable([text for _, text in bad], len(self._samples), skip_bad)
        good = sorted(pair for some, _, _ in everything for pair in some)
        nothing = sorted(index for _, _, some in everything for index in some)
        self._require_content(nothing, [digest for _, digest in good])
        self._renumber([index for index, _ in good])
        return [digest for _, digest in good], stream.hexdigest() if num_processes() == 1 else ""

    def _require_content(self, nothing: list[int], digests: list[str]) -> None:
        """Warn of images that show nothing, which are left out.

        Raises:
            DataError: all images do, or all are the same.
        """
        if not digests:
            raise DataError(
                f"all {len(nothing)} images show a single colour: there is nothing to adapt "
                "to; look at them, and at the camera"
            )
        if len(digests) > 1 and len(set(digests)) == 1:
            raise DataError(
                f"all {len(digests)} images are the same, at the network's size: is the camera "
                "stuck? Give different ones"
            )
        if nothing:
            names = ", ".join(listed_name(self._samples[index].name) for index in nothing[:5])
            logger.warning(
                "%d of %d images show a single colour and are left out: %s%s",
                len(nothing),
                len(self._samples),
                names,
                " …" if len(nothing) > 5 else "",
            )

    def _renumber(self, good: list[int]) -> None:
        """Close the gaps of images that are left out."""
        new = {old: index for index, old in enumerate(good)}
        self._samples = [self._samples[index] for index in good]
        self._kept = {new[old]: image for old, image in self._kept.items()}

    def _keep(self, index: int, image: np.ndarray) -> None:
        with self._lock:
            if len(self._kept) < self._most_kept:
                self._kept[index] = image

    def __len__(self) -> int:
        return len(self._samples)

    def matches(self, recorded_sha256: str) -> bool:
        """Whether a run recorded these images; earlier runs hashed all bytes in one stream."""
        return recorded_sha256 in (self.sha256, self._stream_sha256)

    def hashes_text(self) -> str:
        """A line ``sha256  name`` for each image, as ``sha256sum`` writes them."""
        pairs = zip(self._digests, self._samples, strict=True)
        return "".join(f"{digest}  {listed_name(sample.name)}\n" for digest, sample in pairs)

    def ahead(self, indices: Sequence[int], size_hw: tuple[int, int] | None = None) -> TargetBatch:
        """Begin to read images; ``images`` of the batch waits for them."""
        size = size_hw or self.size_hw
        return TargetBatch([self._pool.submit(self._image, index, size) for index in indices])

    def images(self, indices: Sequence[int], size_hw: tuple[int, int] | None = None) -> Tensor:
        """Images (N, 3, H, W) uint8, channels last in memory; at the input size by default."""
        return self.ahead(indices, size_hw).images()

    def _image(self, index: int, size_hw: tuple[int, int]) -> np.ndarray:
        if size_hw == self.size_hw and index in self._kept:
            return self._kept[index]
        sample = self._samples[index]
        try:
            image = resize_image(sample.image(), size_hw)
        except (ImageError, OSError) as error:
            raise DataError(
                f"{sample.name} could be read when the run began and cannot be read now: {error}; "
                "restore it, and start again or, after the first step, continue with --resume"
            ) from None
        with self._lock:
            self.num_decoded += 1
        if size_hw == self.size_hw:
            self._keep(index, image)
        return image

    def spread(self, count: int) -> list[int]:
        """At most ``count`` image indices, evenly over the set."""
        positions = np.linspace(0, len(self) - 1, min(count, len(self)))
        return [int(position) for position in positions.round()]


class TargetBatch:
    """Images that are being read."""

    def __init__(self, futures: list[Future[np.ndarray]]) -> None:
        self._futures = futures

    def images(self) -> Tensor:
        """Wait for the images and stack them: (N, 3, H, W) uint8."""
        stacked = np.stack([future.result() for future in self._futures])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2)
