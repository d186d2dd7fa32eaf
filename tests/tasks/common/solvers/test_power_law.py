import numpy as np
import pytest

from graft.tasks.common.solvers.power_law import power_law


@pytest.mark.parametrize(("a", "b", "c"), [(0.1, 2.0, 0.5), (0.0, 1.5, 0.4), (0.05, 3.0, 0.75)])
def test_a_power_law_is_found_again(a, b, c):
    n_S = np.array([20.0, 50, 100, 200, 500, 1000])
    found = power_law(n_S, (a + b * n_S**-c)[:, None], np.ones(6))
    assert [float(value[0]) for value in found] == pytest.approx([a, b, c], abs=1e-6)


def test_no_law_goes_below_no_error():
    n_S = np.array([10.0, 100, 1000])
    a_B, b_B, _ = power_law(n_S, np.array([[0.9], [0.3], [0.0]]), np.ones(3))
    assert a_B[0] >= 0
    assert b_B[0] >= 0
