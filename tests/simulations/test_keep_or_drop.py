"""An equal fine-tuned network is kept in about 5 % of cases; a better one more often than by accuracy alone."""

import pytest

from bench.simulations.keep_or_drop import RULE, simulate
from bench.simulations.row import noise

RUNS = 150


@pytest.mark.parametrize("groups", [0, 15])
def test_an_equal_network_is_seldom_kept(groups):
    kept = simulate(RUNS, epochs=11, groups=groups)["now"]
    assert kept <= RULE.significance + noise(RULE.significance, RUNS)


def test_a_network_that_is_three_points_better_is_mostly_kept():
    assert simulate(50, gain=0.03)["now"] >= 0.8 - noise(0.8, 50)
