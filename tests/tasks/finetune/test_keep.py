import numpy as np
import pytest

from graft.tasks.common.heads.base import softmax
from graft.tasks.finetune.keep import Held, Rule, p_of_less, simes, whether_to_keep

N, K = 400, 3
RULE = Rule("accuracy", 0.05, 0.02)


def held(unit_N=None, weight_N=None, seed=0):
    y_N = np.random.default_rng(seed).integers(0, K, N)
    ones = np.ones(N) if weight_N is None else weight_N
    return Held(y_N, ones, np.arange(N) if unit_N is None else unit_N, "classification")


def output(images, signal, seed, scale=1.0):
    """Probabilities of a model that is better with more signal."""
    rng = np.random.default_rng(seed)
    right_NK = images.target[:, None] == np.arange(K)
    return softmax(scale * (signal * right_NK + rng.normal(size=(N, K))))


def test_a_clearly_better_network_is_kept():
    images = held()
    verdict = whether_to_keep(output(images, 1.0, 1), output(images, 3.0, 2), images, RULE)
    assert verdict.chosen == "finetune"
    assert verdict.reason.startswith("fine-tuned is better: accuracy ")


def test_the_same_outputs_are_not_kept():
    images = held()
    same = output(images, 2.0, 1)
    verdict = whether_to_keep(same, same, images, RULE)
    assert (verdict.chosen, verdict.p) == ("head", 1.0)
    assert "no more than chance explains" in verdict.reason


def test_a_network_that_is_only_less_sure_is_not_better():
    """Label smoothing makes outputs less sure; after scaling nothing is left of it."""
    images = held()
    head = output(images, 2.0, 1, scale=3.0)
    verdict = whether_to_keep(head, output(images, 2.0, 1), images, RULE)
    assert verdict.chosen == "head"
    assert verdict.head_loss == pytest.approx(verdict.tuned_loss, rel=0.01)


def test_better_probabilities_are_enough_where_accuracy_has_not_become_worse():
    """The same decisions, with probabilities that tell right from wrong ones."""
    images, rng = held(), np.random.default_rng(5)
    found = output(images, 2.0, 1).argmax(axis=1)
    right_N = found == images.target
    head = 0.8 * (found[:, None] == np.arange(K)) + 0.2 / K
    sure_N = np.where(right_N, 0.9, 0.1) + rng.uniform(-0.09, 0.09, N)
    tuned = sure_N[:, None] * (found[:, None] == np.arange(K)) + (1 - sure_N[:, None]) / K
    verdict = whether_to_keep(head, tuned, images, RULE)
    assert verdict.paired.difference == 0
    assert verdict.p_loss < 0.001
    assert verdict.chosen == "finetune"


def test_better_probabilities_are_not_enough_where_accuracy_may_be_worse_by_more_than_the_margin():
    images, rng = held(), np.random.default_rng(5)
    head = output(images, 2.0, 1)
    found = head.argmax(axis=1)
    spoilt_N = (np.arange(N) % 20 == 0) & (found == images.target)
    found = np.where(spoilt_N, (found + 1) % K, found)
    sure_N = np.where(found == images.target, 0.97, 0.36) + rng.uniform(-0.02, 0.02, N)
    tuned = sure_N[:, None] * (found[:, None] == np.arange(K)) + (1 - sure_N[:, None]) / K
    verdict = whether_to_keep(head, tuned, images, RULE)
    assert verdict.p_loss < 0.001
    assert verdict.chosen == "head"
    assert "`finetune.margin`, 0.02" in verdict.reason
    assert whether_to_keep(head, tuned, images, Rule("accuracy", 0.05, 0.2)).chosen == "finetune"


def test_images_of_one_group_are_one_observation():
    """Twenty-two images better, all of one patient: sure for images, nothing for patients."""
    unit_N = np.arange(N) // 40
    gain_N = np.where(unit_N == 3, 1.0, 0.0)
    assert p_of_less(gain_N, np.ones(N), np.arange(N)) < 1e-6
    assert p_of_less(gain_N, np.ones(N), unit_N) > 0.1


def test_gains_of_the_images_that_weigh_more_count_for_more():
    gain_N = np.where(np.arange(N) % 4 == 0, -0.1, 0.1)
    weight_N = np.where(np.arange(N) % 4 == 0, 10.0, 1.0)
    assert p_of_less(gain_N, np.ones(N), np.arange(N)) < 0.01
    assert p_of_less(gain_N, weight_N, np.arange(N)) > 0.99


def test_the_metric_that_was_asked_for_decides():
    """A model that ignores the rare class has the better accuracy, and the worse balanced accuracy."""
    rng = np.random.default_rng(0)
    y_N = (np.arange(N) % 20 == 0).astype(np.int64)
    careful_N = np.where(y_N == 1, rng.uniform(size=N) < 0.75, rng.uniform(size=N) < 0.2)
    careful = np.stack([1 - careful_N, careful_N], axis=1) * 0.8 + 0.1
    ignorant = np.tile([0.95, 0.05], (N, 1)) + rng.uniform(-0.01, 0.01, (N, 1)) * [1, -1]
    images = Held(y_N, np.where(y_N == 1, 10.0, 0.5), np.arange(N), "classification")
    plain = Held(y_N, np.ones(N), np.arange(N), "classification")
    assert whether_to_keep(careful, ignorant, plain, RULE).chosen == "finetune"
    assert whether_to_keep(careful, ignorant, images, Rule("balanced_accuracy", 0.05, 0.02)).chosen == "head"


def test_what_cannot_keep_the_promise_is_not_kept():
    images = held()
    verdict = whether_to_keep(output(images, 1.0, 1), output(images, 3.0, 2), images, RULE, keeps_promise=False)
    assert verdict.chosen == "head"
    assert "cannot guarantee `head.max_error`" in verdict.reason


def test_the_reason_has_both_metrics_losses_and_p_values():
    images = held()
    verdict = whether_to_keep(output(images, 1.0, 1), output(images, 1.2, 2), images, RULE)
    for told in (verdict.paired.first, verdict.paired.second, verdict.head_loss, verdict.tuned_loss):
        assert f"{told:.4f}" in verdict.reason
    assert f"together {verdict.p:.2g}" in verdict.reason


@pytest.mark.parametrize(("task", "metric"), [("multilabel", "mean_average_precision"), ("regression", "r2")])
def test_other_tasks_are_decided_by_their_own_metric_and_loss(task, metric):
    rng = np.random.default_rng(0)
    if task == "regression":
        target = rng.normal(size=N)
        head, tuned = (target[:, None] + rng.normal(scale=s, size=(N, 1)) for s in (1.0, 0.3))
    else:
        target = (rng.uniform(size=(N, K)) < 0.4).astype(np.float64)
        head, tuned = (1 / (1 + np.exp(-(s * (2 * target - 1) + rng.normal(size=(N, K))))) for s in (0.5, 2.0))
    verdict = whether_to_keep(head, tuned, Held(target, np.ones(N), np.arange(N), task), Rule("auto", 0.05, 0.02))
    assert (verdict.chosen, verdict.paired.metric.key) == ("finetune", metric)


def test_two_tests_that_agree_need_no_correction():
    assert simes(0.04, 0.045) == 0.045
    assert simes(0.02, 0.9) == 0.04
