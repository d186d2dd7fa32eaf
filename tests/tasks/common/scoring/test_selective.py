import numpy as np
import pytest
from scipy.stats import beta, binom

from graft.tasks.common.heads.base import softmax
from graft.tasks.common.scoring.selective import Cuts, promise, thinned, upper_bound
from graft.tasks.common.scoring.temperature import calibrate


def one_by_one(score, wrong):
    """(threshold, answered, errors) for every threshold that makes a difference, counted again each time."""
    cuts = [*sorted(set(score), reverse=True)[1:], 0.0]
    return [(t, int((score > t).sum()), int(wrong[score > t].sum())) for t in cuts]


@pytest.mark.parametrize("decimals", [8, 1], ids=["all scores differ", "many scores are the same"])
def test_the_cuts_are_those_that_counting_gives(decimals):
    rng = np.random.default_rng(0)
    score, wrong = rng.uniform(0.2, 1, 60).round(decimals), rng.uniform(size=60) < 0.3
    cuts = Cuts.of(score, wrong)
    expected = one_by_one(score, wrong)
    assert list(zip(cuts.threshold_M, cuts.answered_M, cuts.errors_M, strict=True)) == expected


def test_the_curve_ends_where_all_images_are_answered():
    table = Cuts.of(np.array([0.9, 0.5, 0.7, 0.6]), np.array([False, True, False, True])).table()
    assert table["coverage"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert table["error"].tolist() == pytest.approx([0, 0, 1 / 3, 0.5])
    assert table["threshold"].tolist() == [0.7, 0.6, 0.5, 0.0]


def test_a_thinned_curve_keeps_its_ends():
    table = thinned(Cuts.of(np.linspace(0.1, 1, 5000), np.zeros(5000, bool)).table(), 100)
    assert len(table["coverage"]) == 100
    assert (table["coverage"][0], table["coverage"][-1]) == (1 / 5000, 1.0)


@pytest.mark.parametrize(("errors", "images"), [(0, 45), (3, 60), (59, 60), (200, 5000)])
def test_the_bound_is_clopper_and_pearsons(errors, images):
    bound = float(upper_bound(errors, images, 0.1))
    assert bound == pytest.approx(beta.ppf(0.9, errors + 1, images - errors))
    assert binom.cdf(errors, images, bound) == pytest.approx(0.1)


def test_where_all_is_wrong_the_bound_is_one():
    assert upper_bound(7, 7, 0.1) == 1.0


def test_45_images_without_an_error_promise_5_percent_and_44_do_not():
    for images, kept in ((44, False), (45, True)):
        found = promise(np.linspace(0.5, 1, images), np.zeros(images, bool), 0.05, 0.9)
        assert (found.threshold == 0.0) == kept


def test_where_all_images_may_be_answered_the_threshold_is_0():
    found = promise(np.linspace(0.5, 1, 500), np.arange(500) % 50 == 0, 0.05, 0.9)
    assert (found.threshold, found.answered, found.errors) == (0.0, 500, 10)


def test_answers_are_withheld_where_errors_begin():
    score = np.linspace(0.01, 1, 1000)
    found = promise(score, score < 0.5, 0.05, 0.9)
    assert 0.45 < found.threshold < 0.5
    assert found.answered == (score > found.threshold).sum()
    assert found.errors == ((score > found.threshold) & (score < 0.5)).sum()


def test_more_confidence_or_fewer_errors_cost_coverage():
    rng = np.random.default_rng(0)
    score = rng.uniform(size=2000)
    wrong = rng.uniform(size=2000) < 0.3 * (1 - score)
    answered = [promise(score, wrong, *asked).answered for asked in ((0.1, 0.9), (0.1, 0.999), (0.05, 0.9))]
    assert answered[0] > answered[1] > 0
    assert answered[0] > answered[2] > 0


def test_without_enough_images_nothing_is_promised_and_the_least_is_told():
    found = promise(np.linspace(0.5, 1, 20), np.zeros(20, bool), 0.05, 0.9)
    assert (found.threshold, found.answered) == (None, 0)
    assert found.least == pytest.approx(1 - 0.1 ** (1 / 20))


def test_what_is_least_can_be_promised_and_less_cannot():
    rng = np.random.default_rng(3)
    score = rng.uniform(size=400)
    wrong = rng.uniform(size=400) < 0.2 * (1 - score)
    least = promise(score, wrong, 0.5, 0.9).least
    assert promise(score, wrong, least * 1.0001, 0.9).threshold is not None
    assert promise(score, wrong, least * 0.9999, 0.9).threshold is None


def test_scores_that_are_all_the_same_are_answered_all_or_not_at_all():
    assert promise(np.ones(200), np.zeros(200, bool), 0.05, 0.9).threshold == 0.0
    assert promise(np.ones(200), np.arange(200) < 40, 0.05, 0.9).threshold is None


def test_many_images_of_the_highest_score_do_not_hide_a_threshold_below_it():
    score = np.repeat([1.0, 0.8, 0.4], [300, 50, 50])
    found = promise(score, score == 0.4, 0.05, 0.9)
    assert (found.threshold, found.answered) == (0.4, 350)


def population(kind, n, seed=0):
    """Probabilities (n, 4) and classes of images of which validation and the rest are drawn."""
    rng = np.random.default_rng(seed)
    z_NK = rng.normal(size=(n, 4)) * (3 if kind == "hard" else 6)
    y_N = (softmax(z_NK).cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)
    return softmax(z_NK * {"too sure": 3.0, "hard": 1.0, "not sure enough": 0.3}[kind]), y_N


@pytest.mark.parametrize(("kind", "max_error"), [("too sure", 0.05), ("hard", 0.1), ("not sure enough", 0.08)])
def test_the_promise_is_broken_as_seldom_as_it_says(kind, max_error):
    """400 times validation images are drawn, temperature and threshold found, and the true share of errors is looked
    up in the whole population."""
    p_NK, y_N = population(kind, 5_000)
    rng = np.random.default_rng(1)
    broken = promised = 0
    for _ in range(400):
        val = rng.integers(0, len(y_N), 250)
        found = calibrate(
            p_NK[val], y_N[val], np.ones(250), "classification", scale=True, max_error=max_error, confidence=0.8
        )
        if found.threshold is not None:
            answers = found.answers(found.apply(p_NK))
            promised += 1
            broken += (p_NK[answers].argmax(axis=1) != y_N[answers]).mean() > max_error
    assert promised > 100
    assert broken <= 0.2 * 400


@pytest.mark.parametrize("images", [50, 200, 1000])
def test_scores_that_say_nothing_break_the_promise_as_seldom_as_it_says(images):
    """The hardest case: whatever the threshold, a little more than `max_error` is wrong, so every promise is broken."""
    rng = np.random.default_rng(2)
    score, wrong = rng.uniform(size=(1000, images)), rng.uniform(size=(1000, images)) < 0.0501
    broken = sum(promise(s, w, 0.05, 0.8).threshold is not None for s, w in zip(score, wrong, strict=True))
    assert 0 < broken <= 0.2 * 1000


def test_groups_of_one_size_count_as_their_number():
    rng = np.random.default_rng(0)
    cuts = Cuts.of(rng.uniform(size=60), np.zeros(60, bool), np.repeat(np.arange(12), 5))
    assert cuts.effective_M[-1] == pytest.approx(12)
    assert cuts.effective_M[0] == 1


def test_groups_of_unequal_size_count_as_kish_says():
    unit_N = np.array([3, 1, 1, 7, 7, 7])
    cuts = Cuts.of(np.linspace(1, 0.5, 6), np.array([False, False, True, False, False, True]), unit_N)
    squares = [1, 2, 1 + 4, 1 + 4 + 1, 1 + 4 + 4, 1 + 4 + 9]
    assert cuts.effective_M.tolist() == pytest.approx([n**2 / s for n, s in zip(range(1, 7), squares)])
    assert cuts.effective_errors[-1] == pytest.approx(2 * 36 / 14 / 6)


def test_20_patients_of_50_images_without_an_error_promise_no_more_than_20_images():
    score, unit_N = np.random.default_rng(0).uniform(size=1000), np.repeat(np.arange(20), 50)
    found = promise(score, np.zeros(1000, bool), 0.05, 0.9, unit_N)
    assert found.threshold is None
    assert found.least == pytest.approx(1 - 0.1 ** (1 / 20))


def test_units_of_one_image_change_nothing():
    rng = np.random.default_rng(0)
    score = rng.uniform(size=500)
    wrong = rng.uniform(size=500) < 0.2 * (1 - score)
    alone = promise(score, wrong, 0.1, 0.9, rng.permutation(500))
    assert alone == promise(score, wrong, 0.1, 0.9)
