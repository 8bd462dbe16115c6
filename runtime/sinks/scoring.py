"""Score a labelled stream while it runs."""

from __future__ import annotations

from pathlib import Path

from runtime.bundle.labels import LabelSpace
from runtime.confusion import ConfusionMatrix
from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.images import ImageError, list_images, read_label_map, resize_label_map


class ScoringSink:
    """Counts label maps against index images: frame i against the i-th file by number or name.

    Label maps are resized to the label's size, each pixel taking its nearest label.

    Attributes:
        confusion: the counts so far.
    """

    def __init__(self, labels_dir: Path, label_space: LabelSpace, ignore_index: int) -> None:
        if not labels_dir.is_dir():
            raise SinkError(f"{labels_dir} is not a folder of label maps")
        try:
            self._paths = list_images(labels_dir)
        except ImageError as error:
            raise SinkError(str(error)) from None
        self.confusion = ConfusionMatrix(label_space.num_classes, ignore_index)

    def write(self, result: Segmentation) -> None:
        """Count one frame."""
        index = result.frame.index
        if index >= len(self._paths):
            raise SinkError(f"frame {index} has no label map; there are {len(self._paths)}")
        try:
            labels = read_label_map(self._paths[index])
            self.confusion.update(labels, resize_label_map(result.label_map, labels.shape))
        except (ImageError, ValueError) as error:
            raise SinkError(f"{self._paths[index].name}: {error}") from None

    def close(self) -> None:
        """Nothing is held open."""
