"""LoadedModel: a network with its weights, where they are from, and how to use it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from sfda_edge.models.spec import ModelSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel:
    """A network with its weights, and how to use it.

    Attributes:
        network: on the CPU, in evaluation mode.
        spec: what it expects and predicts.
        path: of its weights; None for a network that was given in Python.
        sha256: of its weights.
        weights_key: which state dict of a file that holds several; None for the only one.
        loaded_sha256: of the network's weights as they were loaded.
    """

    network: nn.Module = field(repr=False)
    spec: ModelSpec
    path: Path | None
    sha256: str
    weights_key: str | None = None
    loaded_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loaded_sha256", weights_sha256(self.network))

    def as_it_is(self) -> LoadedModel:
        """This model; if its network was trained or pruned since, as one given in Python.

        Its weights are no longer those of the file, so that nothing may be recorded as made of it.
        """
        now = weights_sha256(self.network)
        if now == self.loaded_sha256:
            return self
        logger.warning(
            "the network was changed after it was loaded%s: it is recorded as given in Python",
            "" if self.path is None else f" from {self.path}",
        )
        return LoadedModel(network=self.network, spec=self.spec, path=None, sha256=now)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the predicted classes, by label."""
        return self.spec.output_space.names


def weights_sha256(network: nn.Module) -> str:
    """Hash of a network's parameters and buffers by name."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().reshape(-1).contiguous()
        digest.update(values.view(torch.uint8).numpy())  # NumPy has no bfloat16
    return digest.hexdigest()
