"""AdaptationMethod: what every method is to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sfda_edge.report.page import Section
from sfda_edge.selection.view_search import Views


class AdaptationMethod(ABC):
    """Adapts a model, one batch of target images at a time.

    The model stays an ordinary network with the source's parameters and buffers, so that it can be
    saved, scored and exported at any step.

    Attributes:
        model: the network that is adapted.
        num_steps: how many batches the method wants to see.
        batch_size: how many images in each, over all processes.
        taught_by_views: whether it learns what the source's good views say, by which the guard
            judges: it has to beat the source by more than repeating them brings.
    """

    model: nn.Module
    num_steps: int
    batch_size: int
    taught_by_views: bool = False

    def prepare(self, views: Views) -> None:  # noqa: B027  most methods need nothing
        """Work to do before the first step, also of a resumed run (which then restores).

        Args:
            views: in which ways the source model sees the target well.
        """

    @abstractmethod
    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Learn from one batch; returns what to log.

        Args:
            images: (N, 3, H, W) uint8 on the device: the global batch, the same in all processes.
            indices: which target images they are.
            step: from 0.
        """

    def finish(self) -> None:  # noqa: B027
        """Leave the model as it is to be used; called once after the last step."""

    def bytes_to_come(self) -> int:
        """What the method will still write into the task's ``work_dir``."""
        return 0

    def compile(self) -> None:
        """Let ``torch.compile`` speed up the network that learns."""
        self.model.compile()

    def illustrations(self) -> list[Section]:
        """Pictures of the method's own for the report."""
        return []

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's own parameters and buffers."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned."""
