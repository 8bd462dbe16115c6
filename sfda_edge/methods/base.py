"""AdaptationMethod: what every method is to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class AdaptationMethod(ABC):
    """Adapts ``model`` in place, one batch of target images at a time.

    The model stays an ordinary network with the source's parameters and buffers, so that it can be
    saved, scored and exported at any step.

    Attributes:
        model: the network that is adapted.
        num_steps: how many batches the method wants to see.
        batch_size: how many images in each.
    """

    model: nn.Module
    num_steps: int
    batch_size: int

    @abstractmethod
    def step(self, images: Tensor) -> dict[str, float]:
        """Learn from one normalised batch (N, 3, H, W); returns what to log."""

    @abstractmethod
    def finish(self) -> None:
        """Leave the model as it is to be used; called once after the last step."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs beside the model's own parameters and buffers."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what ``state`` returned."""
