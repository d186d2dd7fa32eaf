import numpy as np
import pytest

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.head.estimator import Trained, check
from graft.tasks.head.search import Fold, Held, search

HELD_ND, HELD_N = np.array([[1.0], [-1.0]], np.float32), np.array([0, 1])
EXAMPLES = check(HELD_ND, HELD_N, None, ["a", "b"], "classification")


def walk_of(scores):
    """Candidates of one feature and two classes: a score of 0 is a guess, the larger the surer, below 0 wrong."""

    def walk(examples, held_MD):
        for n, score in enumerate(scores):
            head = LinearHead(np.float32([[score], [-score]]), np.zeros(2, np.float32), ["a", "b"])
            yield Trained({"n": n}, head, head.output(held_MD), 0.5, iterations=2, converged=n != 1)

    return walk


def found_by(*walks, select="log_loss", patience=3, held=(HELD_ND, HELD_N), each=lambda: None):
    x_MD, y_M = held
    of_held = Held(y_M, np.ones(len(y_M)), "classification")
    return search([walk_of(scores) for scores in walks], [Fold(EXAMPLES, x_MD)], of_held, select, patience, each)


def test_the_least_loss_is_chosen():
    found = found_by([0.1, 0.5, 2.0, 1.0])
    assert found.best == 2
    assert len(found.tried) == 4
    assert found.chosen.settings == {"n": 2}


def test_the_chosen_head_and_what_it_says_are_kept():
    found = found_by([0.1, 0.5, 2.0, 1.0])
    assert found.head.weight[0, 0] == 2.0
    assert np.array_equal(found.output, found.head.predict_proba(HELD_ND))


def test_a_walk_ends_after_as_many_candidates_without_a_better_one_as_its_patience():
    found = found_by([0.1, 2.0, 1.5, 1.4, 1.3, 9.0])
    assert found.best == 1
    assert len(found.tried) == 5


def test_a_walk_goes_on_while_it_improves():
    found = found_by([0.1, 0.2, 0.3, 0.4, 0.5], patience=1)
    assert (len(found.tried), found.best) == (5, 4)


def test_every_walk_is_gone_with_a_patience_of_its_own():
    found = found_by([3.0, 0.1, 0.1, 9.0], [0.2, 0.5, 1.0, 0.1, 0.1, 9.0], patience=2)
    assert [tried.settings["n"] for tried in found.tried] == [0, 1, 2, 0, 1, 2, 3, 4]
    assert found.best == 0


def test_the_best_may_be_of_a_later_walk():
    found = found_by([0.1, 0.2], [0.5, 0.4])
    assert found.best == 2


def test_a_search_by_accuracy_breaks_ties_by_the_loss():
    found = found_by([-1.0, 0.5, 2.0, 1.0], select="accuracy")
    assert found.best == 2
    assert [tried.score.accuracy for tried in found.tried] == [0.0, 1.0, 1.0, 1.0]


def test_a_search_by_accuracy_prefers_more_right_answers_to_a_smaller_loss():
    held = np.float32([[1.0], [1.0], [-100.0]]), np.array([0, 0, 0])
    scores = [5.0, -0.01]  # two right, and the third very wrong; one right, and the others hardly wrong
    chosen = {by: found_by(scores, select=by, held=held).best for by in ("accuracy", "log_loss")}
    assert chosen == {"accuracy": 0, "log_loss": 1}


def test_each_candidate_is_reported():
    calls = []
    found_by([0.1, 0.2], [0.3], each=lambda: calls.append(1))
    assert len(calls) == 3


def test_folds_go_side_by_side_and_all_their_rows_decide():
    folds = [Fold(EXAMPLES, HELD_ND), Fold(EXAMPLES, -HELD_ND[:1])]
    of_held = Held(np.array([0, 1, 1]), np.ones(3), "classification")
    found = search([walk_of([0.1, 2.0, 1.0])], folds, of_held, "log_loss", 3, lambda: None)
    assert found.best == 1
    assert found.output.shape == (3, 2)
    assert found.chosen.score.accuracy == 1.0
    assert found.head is None, "no single head was trained"


def test_trainings_metrics_are_those_of_all_folds():
    folds = [Fold(EXAMPLES, HELD_ND), Fold(EXAMPLES, HELD_ND)]
    of_held = Held(np.tile(HELD_N, 2), np.ones(4), "classification")
    tried = search([walk_of([0.1, 2.0])], folds, of_held, "log_loss", 3, lambda: None).tried
    assert [(one.train_loss, one.iterations, one.converged) for one in tried] == [(0.5, 4, True), (0.5, 4, False)]


@pytest.mark.parametrize("weight", [1.0, 0.001])
def test_weights_of_held_out_rows_count(weight):
    of_held = Held(np.array([0, 0]), np.array([1.0, weight]), "classification")
    chosen = search([walk_of([0.1, 2.0])], [Fold(EXAMPLES, HELD_ND)], of_held, "log_loss", 3, lambda: None).best
    assert chosen == (1 if weight < 1 else 0)


@pytest.mark.parametrize("select", ["log_loss", "accuracy"])
def test_a_candidate_that_says_no_numbers_is_beaten_by_the_next(select):
    assert found_by([np.nan, 0.1, np.nan], select=select).best == 1


def test_without_any_candidate_that_says_numbers_there_is_no_choice():
    with pytest.raises(GraftError, match=r"finite loss(.|\n)*2 tried"):
        found_by([np.nan, np.nan])
