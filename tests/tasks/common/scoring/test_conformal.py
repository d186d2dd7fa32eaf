import math

import numpy as np
import pytest

from graft.tasks.common.scoring.conformal import least_units, nonconformity_limit


def test_of_independent_images_it_is_the_quantile_of_split_conformal_prediction():
    score_N = np.random.default_rng(0).normal(size=99)
    assert nonconformity_limit(score_N, np.arange(99), 0.9) == np.sort(score_N)[90 - 1]
    assert nonconformity_limit(score_N, np.arange(99), 0.95) == np.sort(score_N)[95 - 1]


@pytest.mark.parametrize(("confidence", "units"), [(0.9, 9), (0.95, 19), (0.5, 1), (0.99, 99)])
def test_with_fewer_units_than_the_least_there_is_no_limit(confidence, units):
    assert least_units(confidence) == units
    assert nonconformity_limit(np.ones(units), np.arange(units), confidence) == 1.0
    assert nonconformity_limit(np.ones(units - 1), np.arange(units - 1), confidence) == math.inf


def test_each_unit_counts_once():
    score_N = np.concatenate([np.zeros(1000), np.arange(1.0, 20.0)])
    unit_N = np.concatenate([np.zeros(1000, int), np.arange(1, 20)])
    assert nonconformity_limit(score_N, unit_N, 0.9) == 18  # 0.9 * (20 + 1): the 19th of 20 units
    assert nonconformity_limit(score_N, np.arange(1019), 0.9) == 0


def test_the_images_of_a_unit_share_its_weight():
    score_N, unit_N = np.arange(20.0), np.repeat(np.arange(10), 2)
    assert nonconformity_limit(score_N, unit_N, 0.9) == 19  # 9.9 of 10 units: both images of the last
    assert nonconformity_limit(score_N, unit_N, 0.5) == 10  # 5.5 of 10 units: eleven images
