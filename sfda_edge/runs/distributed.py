"""Data-parallel runs: what several processes have to agree on.

Every process reads, augments and computes its own rows of a global batch; random numbers are drawn
for the global batch, and sums are reduced, so that any number of processes computes what one would.
Outside ``torchrun`` all of this is the identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

Key = TypeVar("Key")
T = TypeVar("T")
# A process that waits for another's long work; a collective's own limit is 10 or 30 minutes.
_LONG_WAIT = timedelta(days=7)


def num_processes() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def wait_for_all() -> None:
    """Wait until every process is here, for days where one of them has long work to do."""
    if num_processes() > 1:
        group = distributed.new_group(backend="gloo", timeout=_LONG_WAIT)
        distributed.barrier(group)
        distributed.destroy_process_group(group)


def leave_group() -> None:
    """Leave the other processes, all at once, after a run without errors.

    A process that ends within the group may be aborted by gloo's threads
    (https://github.com/pytorch/pytorch/issues/190489); one that left it after an error would keep
    the others waiting.
    """
    if num_processes() > 1:
        wait_for_all()
        distributed.destroy_process_group()


def local_rows(batch: Tensor) -> Tensor:
    """This process's rows of a global batch (N, …); N is a multiple of the processes."""
    rows = len(batch) // num_processes()
    return batch[rank() * rows : (rank() + 1) * rows]


def local_share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item, from this process's number on: the shares differ by one item at most."""
    return items[rank() :: num_processes()]


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


def rolled(rows: Tensor) -> Tensor:
    """This process's rows of the global batch rolled by one: each row's predecessor, (N, …)."""
    if num_processes() == 1:
        return rows.roll(1, 0)
    last = [torch.empty_like(rows[-1:].contiguous()) for _ in range(num_processes())]
    distributed.all_gather(last, rows[-1:].contiguous())
    return torch.cat([last[rank() - 1], rows[:-1]])


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
    values = _reducible(torch.tensor(list(found.values()), dtype=torch.float64))
    distributed.all_reduce(values)
    return dict(zip(found, (values / num_processes()).tolist(), strict=True))


def raise_together(failure: Exception | None) -> None:
    """Raise in every process when one has failed; call it before a collective that all must reach.

    Raises:
        RuntimeError: another process failed; this one's own failure is raised as it is.
    """
    failed = averaged({"failed": float(failure is not None)})["failed"]
    if failure is not None:
        raise failure
    if failed:
        raise RuntimeError("another process failed")


def reduced(*sums: Tensor) -> tuple[Tensor, ...]:
    """Each tensor's sum over the processes, without gradients; on the tensor's device."""
    if num_processes() == 1:
        return sums
    found = [_reducible(values.detach().clone()) for values in sums]
    for values in found:
        distributed.all_reduce(values)
    return tuple(total.to(values.device) for total, values in zip(found, sums, strict=True))


def all_objects(value: Any) -> list[Any]:
    """Every process's value, by process number."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    if num_processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            continue  # in all processes alike: they run the same graph
        distributed.all_reduce(parameter.grad)
        parameter.grad /= num_processes()


def _reducible(values: Tensor) -> Tensor:
    """On a device that the processes' backend can reduce."""
    return values.cuda() if distributed.get_backend() == "nccl" else values.cpu()
