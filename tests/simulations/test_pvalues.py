"""A paired test finds a difference between equally good models in at most about 5 % of the runs."""

import pytest

from bench.simulations.intervals import SETTINGS
from bench.simulations.pvalues import ALLOWED, simulate
from bench.simulations.row import noise

RUNS = 200
INDEPENDENT, GROUPED = SETTINGS[0], SETTINGS[2]


@pytest.mark.parametrize("setting", [INDEPENDENT, GROUPED], ids=lambda setting: setting.name)
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_equal_models_are_seldom_found_to_differ(task, setting):
    for metric, rate in simulate(RUNS, setting, task).items():
        assert rate <= ALLOWED + noise(ALLOWED, RUNS), metric
