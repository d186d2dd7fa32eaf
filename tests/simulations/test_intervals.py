"""95 % intervals contain the true value in about 95 % of the runs, with images of one patient together."""

import numpy as np
import pytest

from bench.simulations.intervals import CONFIDENCE, SETTINGS, outputs, simulate, targets
from bench.simulations.row import Row, noise
from bench.statistics import markdown

RUNS = 200
INDEPENDENT, GROUPED = SETTINGS[0], SETTINGS[2]


def test_images_of_a_unit_are_right_together_with_an_intraclass_correlation_of_three_tenths():
    rng, unit_N = np.random.default_rng(0), np.repeat(np.arange(5000), 20)
    y_N = targets(rng, unit_N, True, "classification")
    p_NK = outputs(rng, y_N, unit_N, True, "classification")
    right_UI = (p_NK.argmax(axis=1) == y_N).reshape(-1, 20)
    between, within = 20 * right_UI.mean(axis=1).var(ddof=1), right_UI.var(axis=1, ddof=1).mean()

    assert (between - within) / (between + 19 * within) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_intervals_of_independent_images_cover_what_they_promise(task):
    for key, rate in simulate(RUNS, INDEPENDENT, task).items():
        assert rate == pytest.approx(CONFIDENCE, abs=0.02 + noise(CONFIDENCE, RUNS)), key


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_intervals_of_patients_cover_what_they_promise(task):
    for key, rate in simulate(RUNS, GROUPED, task).items():
        assert rate >= 0.91 - noise(0.91, RUNS), key


def test_the_table_says_which_statement_fails():
    rows = [Row("holds", 0.95, 0.94, (0.93, 0.97), 100), Row("does not", 0.95, 0.5, (0.93, 0.97), 100)]
    lines = list(markdown({"kind": rows}))

    assert lines[-2:] == [
        "| holds | 95.0% | 94.0% | 93.0% | 97.0% | 100 | passes |",
        "| does not | 95.0% | 50.0% | 93.0% | 97.0% | 100 | **fails** |",
    ]
