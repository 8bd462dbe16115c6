"""Device, precision and processes of a run, by Lightning Fabric."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

from sfda_edge.errors import SfdaEdgeError
from sfda_edge.runs.device import choose_device

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

Precision = Literal["fp32", "bf16", "fp16"]
_FABRIC_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def usable_device(name: str, precision: Precision) -> torch.device:
    """The device by its name, if it can compute in that precision.

    Raises:
        SfdaEdgeError: it is not there, or cannot.
    """
    if precision not in _FABRIC_PRECISION:
        known = ", ".join(_FABRIC_PRECISION)
        raise SfdaEdgeError(f"unknown precision '{precision}'; known: {known}")
    device = choose_device(name)
    if precision == "fp16" and device.type != "cuda":
        raise SfdaEdgeError(f"--precision fp16 needs a CUDA GPU, not {device}; try bf16 or fp32")
    return device


def open_fabric(device_name: str = "auto", precision: Precision = "fp32") -> Fabric:
    """One process on the device asked for, or this process's part of a ``torchrun``.

    Of several processes the first alone logs what is no warning.

    Raises:
        SfdaEdgeError: the device is not there, or it cannot compute in that precision.
    """
    device = usable_device(device_name, precision)
    # Importing it takes five seconds: images or a device that are not there are said before.
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="cpu" if device.type == "cpu" else device.type,
        devices=here if processes > 1 or device.type == "cpu" else [device.index or 0],
        num_nodes=processes // here,
        strategy="ddp" if processes > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    fabric.launch()
    if fabric.global_rank > 0:  # one speaks for all
        logging.getLogger().setLevel(logging.WARNING)
    return fabric
