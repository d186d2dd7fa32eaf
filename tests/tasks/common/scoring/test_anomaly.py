"""Metrics of anomaly scores; scikit-learn and scipy are the reference."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as reference

from graft.tasks.common.data.task import METRICS
from graft.tasks.common.scoring.anomaly import Rate, ranking_scores
from graft.tasks.common.scoring.main_metric import metric_of
from graft.tasks.common.scoring.paired import compare, outcome

KEYS = {key for metric in METRICS["anomaly"] for key in metric.keys}


def scored(n=60, gap=2.0, seed=0):
    """(scores, whether an image has a defect); a third have one."""
    rng = np.random.default_rng(seed)
    defect_N = np.arange(n) % 3 == 0
    return rng.normal(size=n) + gap * defect_N, defect_N


@pytest.mark.parametrize("seed", range(4))
def test_the_metrics_are_scikit_learns_inside_their_intervals(seed):
    score_N, defect_N = scored(seed=seed)
    found = ranking_scores(score_N, defect_N, np.arange(60), 0.95)
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(defect_N, score_N))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(defect_N, score_N))
    for metric in METRICS["anomaly"]:
        value, low, high = (found[key] for key in metric.keys)
        assert 0 < low < value < high <= 1


@pytest.mark.parametrize("defect", [True, False])
def test_images_of_one_kind_have_no_ranking(defect):
    found = ranking_scores(np.arange(9.0), np.full(9, defect), np.arange(9), 0.95)
    assert found == dict.fromkeys(KEYS)


def test_a_single_defect_has_a_wide_interval():
    found = ranking_scores(np.arange(30.0), np.arange(30) == 29, np.arange(30), 0.95)
    assert found["auroc"] == found["auroc_high"] == 1.0
    assert found["auroc_low"] < 0.8


def test_constant_scores_are_no_better_than_chance():
    found = ranking_scores(np.full(30, 4.2), np.arange(30) < 10, np.arange(30), 0.95)
    assert found["auroc"] == 0.5
    assert found["average_precision"] == pytest.approx(1 / 3)


def test_copies_of_an_image_do_not_narrow_the_interval():
    score_N, defect_N = scored()
    alone = ranking_scores(score_N, defect_N, np.arange(60), 0.95)
    copied = ranking_scores(np.tile(score_N, 3), np.tile(defect_N, 3), np.tile(np.arange(60), 3), 0.95)
    assert copied["auroc_low"] == pytest.approx(alone["auroc_low"], abs=0.02)


@pytest.mark.parametrize(("above", "n"), [(0, 20), (3, 60), (60, 60)])
def test_a_rate_of_independent_images_has_wilsons_interval(above, n):
    found = Rate.of(np.arange(n) < above, np.arange(n), 0.95)
    assert (found.above, found.images, found.value) == (above, n, above / n)
    assert (found.low, found.high) == pytest.approx(tuple(binomtest(above, n).proportion_ci(method="wilson")))


def test_a_rate_of_no_image_is_unknown():
    found = Rate.of(np.zeros(0, bool), np.zeros(0, np.int64), 0.95)
    assert found.named("detection_rate") == dict.fromkeys(
        ["detection_rate", "detection_rate_low", "detection_rate_high"]
    )
    assert found.at_most(0.05) is None


@pytest.mark.parametrize(("above", "may"), [(3, True), (6, True), (14, False)])
def test_more_false_alarms_than_chance_allows_break_a_promise(above, may):
    assert Rate.of(np.arange(60) < above, np.arange(60), 0.95).at_most(0.05) is may


def test_the_better_of_two_models_ranks_better_in_a_paired_test():
    score_N, defect_N = scored(200, gap=1.0)
    better_N = score_N + 2 * defect_N
    target_N, unit_N = defect_N.astype(np.int64), np.arange(200)
    found = compare(score_N[:, None], better_N[:, None], target_N, unit_N, "anomaly")
    assert found.second == pytest.approx(metric_of(better_N[:, None], target_N, "auroc", "anomaly"))
    assert outcome(found, 0.01).says == "better"
    assert outcome(compare(better_N[:, None], score_N[:, None], target_N, unit_N, "anomaly"), 0.01).says == "worse"
