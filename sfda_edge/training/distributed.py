"""Data-parallel runs: what several processes have to agree on.

Every process draws the same global batch and the same random numbers, works on its own rows, and
reports sums, so that any number of processes computes what one would. Outside ``torchrun`` all of
this is the identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

Key = TypeVar("Key")


def num_processes() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def part() -> None:
    """Leave the others, all at once, after work that went well.

    A process that ends within the group may be aborted by gloo's threads
    (https://github.com/pytorch/pytorch/issues/190489); one that left it after an error would keep
    the others waiting.
    """
    if num_processes() > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def own_rows(batch: Tensor) -> Tensor:
    """The rows of a global batch (N, …) that this process works on; N is a multiple of it."""
    rows = len(batch) // num_processes()
    return batch[rank() * rows : (rank() + 1) * rows]


def summed(values: Tensor) -> Tensor:
    """The sum over all processes; gradients flow back to each."""
    return all_reduce(values) if num_processes() > 1 else values


def gathered(rows: Tensor) -> Tensor:
    """All processes' rows in the order of the global batch; gradients flow back to each."""
    if num_processes() == 1:
        return rows
    before = rows.new_zeros((rank() * len(rows), *rows.shape[1:]))
    after = rows.new_zeros(((num_processes() - 1 - rank()) * len(rows), *rows.shape[1:]))
    return summed(torch.cat([before, rows, after]))


def mean_over(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of values (any shape) as this process's part of the global loss.

    The gradients of all processes' parts, averaged, are those of the mean over everything. Without
    any weight the mean is 0.
    """
    total = summed(weights.detach().sum().double())
    return (values * weights).sum() * (num_processes() / total.clamp_min(1e-12)).to(values.dtype)


def averaged(found: dict[Key, float]) -> dict[Key, float]:
    """Every value's mean over the processes, so that all log, choose and stop alike."""
    if num_processes() == 1:
        return found
    values = torch.tensor(list(found.values()), dtype=torch.float64)
    if distributed.get_backend() == "nccl":
        values = values.cuda()
    distributed.all_reduce(values)
    return dict(zip(found, (values / num_processes()).tolist(), strict=True))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    if num_processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            continue  # in all processes alike: they run the same graph
        distributed.all_reduce(parameter.grad)
        parameter.grad /= num_processes()
