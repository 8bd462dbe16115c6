"""The device that a run computes on."""

from __future__ import annotations

import torch

from sfda_edge.errors import SfdaEdgeError

# Others hold no values (meta), or torch has no kernels of ours for them.
_KINDS = ("cpu", "cuda", "mps", "xpu")


def choose_device(name: str) -> torch.device:
    """The device asked for; ``auto`` is the first CUDA GPU, or the CPU where there is none.

    Raises:
        SfdaEdgeError: the device is not there, or is of another kind.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in _KINDS:
            raise RuntimeError(f"it is none of {', '.join(_KINDS)}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise SfdaEdgeError(f"device '{name}' cannot be used: {reason}; try --device cpu") from None
    return device
