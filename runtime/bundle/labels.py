"""LabelSpace: what the numbers in a label map mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Ignored by the field's convention, whatever a label space says; no class has this number.
IGNORED = 255


@dataclass(frozen=True)
class LabelSpace:
    """Class names with their colours.

    Attributes:
        names: class i is ``names[i]``.
        palette: one (red, green, blue) in 0 to 255 for each class.
        ignore_index: the label of pixels that belong to no class; ``IGNORED`` is one always.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int = IGNORED

    def __post_init__(self) -> None:
        for name in self.names:
            if not isinstance(name, str) or not name.strip() or not name.isprintable():
                raise ValueError(f"class names must be printable texts, got {name!r}")
        if len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} colours")
        if not 2 <= len(self.names) <= 255:
            raise ValueError(f"a label space needs 2 to 255 classes, got {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"class names must differ: {', '.join(self.names)}")
        if not isinstance(self.ignore_index, int) or isinstance(self.ignore_index, bool):
            raise ValueError(f"ignore index must be a whole number, got {self.ignore_index!r}")
        if 0 <= self.ignore_index < len(self.names):
            raise ValueError(
                f"ignore index {self.ignore_index} is also class '{self.names[self.ignore_index]}'"
            )
        if not all(0 <= level <= 255 for colour in self.palette for level in colour):
            raise ValueError("colours are of levels from 0 to 255")
        if not 0 <= self.ignore_index <= 255:
            raise ValueError(f"ignore index must fit in a byte, got {self.ignore_index}")

    @property
    def num_classes(self) -> int:
        """How many classes there are, the ignored label not counted."""
        return len(self.names)

    def colour_table(self) -> np.ndarray:
        """Colours by label, (256, 3) uint8; black where there is no class."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.num_classes] = self.palette
        return table
