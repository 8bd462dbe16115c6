"""AdaptationMethod: what every method is to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.errors import RecipeError
from sfda_edge.methods.illustrations import Illustration
from sfda_edge.selection.view_search import SelectedViews
from sfda_edge.task import AdaptationTask
from sfda_edge.training.optimization import ScheduledOptimizer


class AdaptationMethod(ABC):
    """Adapts a model, one batch of target images at a time.

    The model stays an ordinary network with the source's parameters and buffers, so that it can be
    saved, scored and exported at any step.

    Args:
        task: its model is adapted in place.
        recipe: the method's settings, with ``steps`` and ``batch_size``, and with ``target_share``
            where ``prepare`` is not overridden.

    Attributes:
        name: in ``METHODS``.
        needs_batchnorm: whether the network must have BatchNorm layers with running statistics.
        trains_on_ensemble: whether it trains on the labels of the source's best views, by which
            checkpoints are scored: then it needs more than that brings by itself.
        compares_sizes: whether views of other input sizes are worth their time.
        whole_batches: whether every process gets whole batches instead of its own rows.
        model: the network that is adapted.
        num_steps: number of batches.
        batch_size: images in each, over all processes.
        optimizers: by name; their moments are what a resumed run needs.

    Raises:
        RecipeError: the network has no BatchNorm layers and the method needs them.
    """

    name: ClassVar[str]
    needs_batchnorm: ClassVar[bool] = False
    trains_on_ensemble: ClassVar[bool] = False
    compares_sizes: ClassVar[bool] = True
    whole_batches: ClassVar[bool] = False

    def __init__(self, task: AdaptationTask, recipe: Any) -> None:
        if self.needs_batchnorm and not batchnorm_layers(task.model):
            raise RecipeError(
                f"method {self.name} needs BatchNorm layers with running statistics; the network "
                "has none. Methods that need none: multiview, maxsquare, selftrain"
            )
        self.task, self.model, self.recipe = task, task.model, recipe
        self.num_steps, self.batch_size = recipe.steps, recipe.batch_size
        self.optimizers: dict[str, ScheduledOptimizer] = {}

    def prepare(self, views: SelectedViews) -> None:
        """Work before the first step, also of a resumed run (which restores afterwards).

        Args:
            views: at which the source model is accurate on the target.
        """
        self.task.mix_target_statistics(self._target_share(views))

    def _target_share(self, views: SelectedViews) -> float:
        """The recipe's share of target statistics; for ``auto`` the best view's."""
        share = self.recipe.target_share
        return views.kept[0].target_share if share == "auto" else float(share)

    @abstractmethod
    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Train on one batch; returns what to log.

        Args:
            images: (N, 3, H, W) uint8 on the device: this process's rows of the global batch.
            indices: which target images they are.
            step: from 0.
        """

    def finish(self) -> None:  # noqa: B027
        """Leave the model as it is to be used; called once after the last step."""

    def bytes_to_come(self) -> int:
        """What the method will still write into the task's ``work_dir``."""
        return 0

    def compile(self) -> None:
        """Speed up the trained network by ``torch.compile``."""
        self.model.compile()

    def illustrations(self) -> list[Illustration]:
        """Pictures of the method's own parts for the report."""
        return []

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's own parameters and buffers."""
        return {name: optimizer.state() for name, optimizer in self.optimizers.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        for name, optimizer in self.optimizers.items():
            optimizer.restore(state[name])
