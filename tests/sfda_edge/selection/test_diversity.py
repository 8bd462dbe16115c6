import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.diversity import diversity_left, effective_classes

MIN_ENTROPY = SelectionConfig().min_entropy


def test_effective_classes_counts_equals_and_lone_ones():
    assert effective_classes(torch.full((4,), 0.25)) == pytest.approx(4)
    assert effective_classes(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_classes(torch.tensor([float("nan"), 0.5])) == 0.0


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20))
def test_effective_classes_lie_between_one_and_all(sizes):
    shares = torch.tensor(sizes, dtype=torch.float64)
    found = effective_classes(shares / shares.sum())
    assert 1 - 1e-9 <= found <= len(sizes) + 1e-9


def test_one_class_keeps_nothing_of_however_many():
    for before in (1.2, 2.0, 11.0):
        assert diversity_left(1.0, before, MIN_ENTROPY) == 0
        assert diversity_left(before, before, MIN_ENTROPY) == pytest.approx(1)
    assert diversity_left(math.sqrt(7.0), 7.0, MIN_ENTROPY) == pytest.approx(0.5)


def test_where_there_was_one_class_nothing_is_lost():
    assert diversity_left(1.0, 1.0, MIN_ENTROPY) == 1
    assert diversity_left(1.0, 1.001, MIN_ENTROPY) == 1
    assert diversity_left(3.0, 1.0, MIN_ENTROPY) == 1


def test_answers_that_are_no_numbers_keep_nothing():
    assert diversity_left(0.0, 5.0, MIN_ENTROPY) == 0
    assert diversity_left(0.0, 1.0, MIN_ENTROPY) == 0
