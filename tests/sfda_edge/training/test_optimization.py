"""The learning rate over a run."""

from __future__ import annotations

import pytest

from sfda_edge.training.optimization import polynomial_decay


def test_the_rate_rises_linearly_and_falls_with_a_power():
    share = polynomial_decay(300, 30)
    assert share(0) == pytest.approx(1 / 31)
    assert share(14) == pytest.approx(15 / 31 * (1 - 14 / 300) ** 0.9)
    assert share(150) == pytest.approx(0.5**0.9)


@pytest.mark.parametrize("num_steps", [1, 9, 20, 150, 299])
def test_the_warm_up_of_a_short_run_is_short(num_steps):
    """With 30 of 20 steps the rate would never be a fifth of what was asked for."""
    shares = [polynomial_decay(num_steps, 30)(step) for step in range(num_steps)]
    assert max(shares) > 0.85
    assert shares.index(max(shares)) <= num_steps / 10
