"""Which target images a step trains on, and which of them this process reads."""

from __future__ import annotations

import torch

from sfda_edge.runs.distributed import local_rows


def batch_indices(num_images: int, batch_size: int, *, seed: int, step: int) -> list[int]:
    """The images of step ``step``'s global batch; no state, so a resumed run gets the same.

    Each position of the batch has its own part of the images, every n-th one, and goes through it
    in a new order each epoch. So a process, which has fixed positions, reads and keeps only its own
    parts, and what a step trains on does not depend on the number of processes.
    """
    num_parts = min(batch_size, num_images)
    found = []
    for position in range(batch_size):
        part = position % num_parts
        size = len(range(part, num_images, num_parts))
        epoch, offset = divmod(step, size)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 4099 + position)
        order = torch.randperm(size, generator=generator)
        found.append(part + num_parts * int(order[offset]))
    return found


def local_indices(indices: list[int]) -> list[int]:
    """This process's rows of a global batch."""
    return local_rows(torch.tensor(indices)).tolist()
