"""Lossless copies change neither the cross-validated accuracy nor what is suspected.

The standard deviation of an accuracy near 75 % on 300 pictures is 2.5 points, of the mean of 2 runs 1.8 points; the
same pictures are judged with and without copies, so these two differ by less.
"""

import pytest

from bench.simulations.copies import simulate


def test_copies_leave_accuracy_and_suspects_as_they_are():
    rates = simulate(2, 300, seed=1)
    assert rates["copies"] == pytest.approx(rates["alone"], abs=0.02)
    assert rates["copies"] == pytest.approx(rates["test"], abs=0.054)
    assert rates["found_copies"] == pytest.approx(rates["found_alone"], abs=0.1)
    assert rates["found_torn"] < 0.5 * rates["found_alone"]
    assert rates["torn"] > rates["test"] + 0.05  # the setting is one where torn copies mislead
