import numpy as np

from tasks.common.logistic import Step
from tasks.head.search import search


def step(weight, bias=0.0, l2=1.0):
    """Of one feature and two classes."""
    weight_KD, bias_K = np.array([[weight], [-weight]], np.float32), np.array([-bias, bias], np.float32)
    return Step(l2, weight_KD, bias_K, 0.0, 1, True)


def search_of(scores, by="log_loss", patience=3):
    """Along steps whose validation losses go as told: the closer to 0, the surer."""
    steps = (step(score, l2=10.0**-n) for n, score in enumerate(scores))
    x_ND, y_N = np.array([[1.0], [-1.0]], np.float32), np.array([0, 1])
    return search(steps, x_ND, y_N, np.ones(2), by, patience, lambda: None)


def test_the_search_picks_the_least_validation_loss():
    visited, best = search_of([0.1, 0.5, 2.0, 1.0])
    assert best == 2
    assert len(visited) == 4


def test_the_search_stops_after_as_many_strengths_without_a_better_one_as_its_patience():
    visited, best = search_of([0.1, 2.0, 1.5, 1.4, 1.3, 9.0], patience=3)
    assert best == 1
    assert len(visited) == 5


def test_the_search_goes_on_while_it_improves():
    visited, best = search_of([0.1, 0.2, 0.3, 0.4, 0.5], patience=1)
    assert (len(visited), best) == (5, 4)


def test_a_search_by_accuracy_breaks_ties_by_the_loss():
    visited, best = search_of([-1.0, 0.5, 2.0, 1.0], by="accuracy")
    assert best == 2
    assert [v.val_accuracy for v in visited] == [0.0, 1.0, 1.0, 1.0]


def test_a_search_by_accuracy_prefers_more_right_answers_to_a_smaller_loss():
    x_ND, y_N = np.array([[1.0], [1.0], [-100.0]], np.float32), np.array([0, 0, 0])
    steps = [step(5.0), step(0.0, bias=0.1)]  # two right and the third very wrong; none right and hardly wrong
    chosen = {by: search(iter(steps), x_ND, y_N, np.ones(3), by, 9, lambda: None)[1] for by in ("accuracy", "log_loss")}
    assert chosen == {"accuracy": 0, "log_loss": 1}


def test_each_strength_is_reported():
    calls = []
    x_ND, y_N = np.array([[1.0]], np.float32), np.array([0])
    search(iter([step(0.1), step(0.2)]), x_ND, y_N, np.ones(1), "log_loss", 3, lambda: calls.append(1))
    assert len(calls) == 2
