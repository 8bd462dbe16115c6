"""Values as colours."""

from __future__ import annotations

import numpy as np


def heat(values: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] as (H, W, 3) uint8, dark to bright."""
    from matplotlib import colormaps

    return (colormaps["viridis"](values)[..., :3] * 255).astype(np.uint8)
