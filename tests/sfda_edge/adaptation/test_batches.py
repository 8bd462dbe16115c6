from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfda_edge.adaptation.batches import batch_indices, local_indices


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_each_position_shows_each_of_its_images_once_an_epoch(num_images, batch_size, seed):
    parts = min(num_images, batch_size)
    for position in range(batch_size):
        own = list(range(position % parts, num_images, parts))
        for epoch in range(3):
            steps = range(epoch * len(own), (epoch + 1) * len(own))
            shown = [
                batch_indices(num_images, batch_size, seed=seed, step=s)[position] for s in steps
            ]
            assert sorted(shown) == own


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_where_batches_divide_the_set_an_epoch_shows_every_image_once(size, steps, seed):
    num_images = size * steps
    shown = [i for s in range(steps) for i in batch_indices(num_images, size, seed=seed, step=s)]
    assert Counter(shown) == Counter(range(num_images))


def test_another_seed_and_another_epoch_are_another_order():
    def epoch(seed, number):
        steps = range(10 * number, 10 * number + 10)
        return [batch_indices(50, 5, seed=seed, step=step) for step in steps]

    assert epoch(0, 0) != epoch(1, 0)
    assert epoch(0, 0) != epoch(0, 1)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_process_reads_only_its_own_parts_of_the_images(processes, monkeypatch):
    monkeypatch.setattr("sfda_edge.runs.distributed.num_processes", lambda: processes)
    read = []
    for rank in range(processes):
        monkeypatch.setattr("sfda_edge.runs.distributed.rank", lambda rank=rank: rank)
        steps = (batch_indices(40, 8, seed=0, step=step) for step in range(30))
        read.append({index for batch in steps for index in local_indices(batch)})
    assert sorted(index for some in read for index in some) == list(range(40))
