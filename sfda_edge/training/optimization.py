"""ScheduledOptimizer: an optimizer, its schedule, and the gradients of all processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sfda_edge.runs.distributed import average_gradients

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Schedule = Callable[[int], float]  # step → share of the highest learning rate


def constant(_step: int) -> float:
    """The schedule that changes nothing."""
    return 1.0


def polynomial_decay(num_steps: int, warmup_steps: int = 0) -> Schedule:
    """Linear warm-up, multiplied with (1 - progress)^0.9: the field's usual schedule.

    The warm-up takes a tenth of the steps at most: a short run would end within a longer one.
    """
    rising_steps = min(warmup_steps, num_steps // 10)

    def share(step: int) -> float:
        rise = min(1.0, (step + 1) / (rising_steps + 1))
        return rise * (1 - step / num_steps) ** 0.9

    return share


class ScheduledOptimizer:
    """An optimizer with its schedule.

    Args:
        fabric: scales the loss in half precision.
        optimizer: over the trained parameters; its learning rates are the highest.
        schedule: step → share of the highest learning rate.
    """

    def __init__(
        self, fabric: Fabric, optimizer: torch.optim.Optimizer, schedule: Schedule = constant
    ) -> None:
        self.optimizer = optimizer
        self._fabric, self._schedule = fabric, schedule
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._wrapped: Any = fabric.setup_optimizers(optimizer)

    def minimize(self, loss: Tensor, step: int) -> None:
        """One step down the gradient of the loss, which is this process's part of it."""
        self.optimizer.zero_grad()
        self._fabric.backward(loss)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            average_gradients(group["params"])
            group["lr"] = rate * self._schedule(step)
        self._wrapped.step()

    def state(self) -> dict[str, Any]:
        """The optimizer's moments."""
        return self.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.optimizer.load_state_dict(state)


@contextmanager
def only_trainable(network: nn.Module, parameters: Collection[nn.Parameter] = ()) -> Iterator[None]:
    """Let no other parameter of the network require gradients; afterwards all are as before.

    Some may have been frozen by whoever made the network.
    """
    trained = {id(parameter) for parameter in parameters}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def segmentation_sgd(model: nn.Module, learning_rate: float) -> torch.optim.SGD:
    """SFDA's optimizer of the segmentation network, as in the paper: Nesterov, decay 1e-4."""
    return torch.optim.SGD(
        model.parameters(), learning_rate, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
