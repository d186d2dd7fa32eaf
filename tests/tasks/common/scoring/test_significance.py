import numpy as np
import pytest
from scipy.stats import binom

from tasks.common.scoring.significance import mid_p, paired_p


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (5, 2), (2, 5), (20, 3)])
def test_mid_p_is_the_tail_with_half_of_its_first_term(won, lost):
    n = won + lost
    expected = binom.sf(won, n, 0.5) + binom.pmf(won, n, 0.5) / 2 if n else 1.0
    assert mid_p(won, lost) == pytest.approx(expected)


def test_classes_are_compared_image_by_image():
    y_N = np.zeros(20, np.int64)
    wrong, right = np.tile([0.0, 1.0], (20, 1)), np.tile([1.0, 0.0], (20, 1))
    half = np.where(np.arange(20)[:, None] < 10, wrong, right)
    assert paired_p(half, right, y_N, "classification", 0) == mid_p(10, 0)
    assert paired_p(right, half, y_N, "classification", 0) == mid_p(0, 10)
    assert paired_p(half, half, y_N, "classification", 0) == 1.0


def test_numbers_are_compared_by_a_paired_bootstrap():
    rng = np.random.default_rng(0)
    target = rng.normal(size=60)
    rough, fine = (target[:, None] + rng.normal(0, spread, (60, 1)) for spread in (0.5, 0.1))
    assert paired_p(rough, fine, target, "regression", 0) < 0.01
    assert paired_p(fine, rough, target, "regression", 0) > 0.99
    assert paired_p(rough, fine, target, "regression", 0) == paired_p(rough, fine, target, "regression", 0)


def test_equal_models_are_rarely_told_apart():
    rng = np.random.default_rng(0)
    y_N = np.zeros(300, np.int64)
    found = []
    for _ in range(400):
        head, tuned = (np.where(rng.random(300)[:, None] < 0.9, [1.0, 0.0], [0.0, 1.0]) for _ in range(2))
        found.append(paired_p(head, tuned, y_N, "classification", 0))
    assert np.mean(np.array(found) < 0.05) < 0.08
