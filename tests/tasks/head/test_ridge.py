import numpy as np
import pytest
from sklearn.linear_model import Ridge as ScikitRidge
from sklearn.linear_model import RidgeClassifier

from graft.tasks.common.heads.base import sigmoid, softmax
from graft.tasks.common.scoring.classification import log_loss
from graft.tasks.common.solvers.principal_axes import rotate
from graft.tasks.head import ridge
from graft.tasks.head.estimator import check
from graft.tasks.head.ridge import Ridge

STRENGTHS = np.array([10.0, 1e-1, 1e-3])
D = 12


def rows(n=80, d=D, seed=0):
    rng = np.random.default_rng(seed)
    x_ND = (rng.normal(size=(n, d)) * np.geomspace(3, 0.2, d) + 5).astype(np.float32)
    return x_ND, 50 + x_ND[:, 0] * 4 + rng.normal(size=n), rng.uniform(0.5, 3, n)


def classes_of(numbers, k=3):
    return np.digitize(numbers, np.quantile(numbers, np.arange(1, k) / k)).astype(np.int64)


def standardised(x_ND, weight_N):
    basis, _ = rotate(x_ND, weight_N, None)
    return (x_ND - basis.mean_D) / basis.scale_D


@pytest.mark.parametrize("n", [80, 9], ids=["more rows than features", "fewer"])
@pytest.mark.parametrize("l2", STRENGTHS)
def test_numbers_are_scikit_learns(n, l2):
    x_ND, y_N, weight_N = rows(n)
    z_ND = standardised(x_ND, weight_N)
    theirs = ScikitRidge(alpha=l2 * weight_N.sum()).fit(z_ND, y_N, sample_weight=weight_N)
    ours = Ridge([], "regression", l2=l2).fit(x_ND, y_N, weight_N)
    assert np.allclose(ours.predict(x_ND), theirs.predict(z_ND), rtol=1e-4)


@pytest.mark.parametrize("l2", STRENGTHS)
def test_the_slopes_of_classes_are_scikit_learns_but_for_one_factor(l2):
    x_ND, numbers, weight_N = rows()
    y_N, z_ND = classes_of(numbers), standardised(x_ND, weight_N)
    theirs = RidgeClassifier(alpha=l2 * weight_N.sum()).fit(z_ND, y_N, sample_weight=weight_N).coef_
    basis, _ = rotate(x_ND, weight_N, None)
    ours = Ridge(list("abc"), l2=l2).fit(x_ND, y_N, weight_N).head_.weight * basis.scale_D
    factor = (ours * theirs).sum() / (theirs**2).sum()
    assert factor > 0
    assert np.allclose(ours / factor, theirs, atol=1e-4)


@pytest.mark.parametrize("l2", [0.3, 1e-6])
@pytest.mark.parametrize(("n", "d"), [(30, D), (20, 60)], ids=["more rows than features", "fewer"])
def test_a_rows_score_without_it_is_that_of_a_solution_without_it(n, d, l2):
    x_ND, numbers, weight_N = rows(n, d)
    examples = check(x_ND, classes_of(numbers), weight_N, list("abc"), "classification")
    solver = ridge._Solver(examples, list("abc"), "classification", None)
    z_ND = standardised(x_ND, weight_N)
    score_SK = solver._sample.rows_SR @ (solver._with_target_RK / (solver._variance_R + l2)[:, None])
    told_SK = solver._without_itself(score_SK, l2) + solver._targets.mean_K
    y_NK = 2.0 * np.eye(3)[examples.target] - 1
    share_N = weight_N / weight_N.sum()
    for row in range(n):  # the sum of weights is that of all, so that the penalty is the same
        left_N = np.where(np.arange(n) == row, 0, share_N)
        mean_D, mean_K = (left_N @ values / left_N.sum() for values in (z_ND, y_NK))
        centred_ND = z_ND - mean_D
        root_N1 = np.sqrt(left_N)[:, None]
        inner_NN = (root_N1 * centred_ND) @ (root_N1 * centred_ND).T + l2 * np.eye(n)
        slope_DK = (root_N1 * centred_ND).T @ np.linalg.solve(inner_NN, root_N1 * (y_NK - mean_K))
        assert np.allclose(centred_ND[row] @ slope_DK + mean_K, told_SK[row], atol=1e-2 if l2 < 1e-3 else 1e-4)


def test_the_path_has_what_each_strength_has_by_itself():
    x_ND, y_N, weight_N = rows()
    examples = check(x_ND, y_N, weight_N, [], "regression")
    steps = list(ridge.path([], "regression", STRENGTHS, None)(examples, x_ND[:5]))
    assert [step.settings for step in steps] == [{"l2": l2} for l2 in STRENGTHS]
    for step, l2 in zip(steps, STRENGTHS, strict=True):
        alone = Ridge([], "regression", l2=l2).fit(x_ND, y_N, weight_N)
        assert np.array_equal(step.output[:, 0], alone.predict(x_ND[:5]))


def test_the_training_loss_of_numbers_is_their_mean_squared_error():
    x_ND, y_N, weight_N = rows()
    for step in ridge.path([], "regression", STRENGTHS, None)(check(x_ND, y_N, weight_N, [], "regression"), x_ND):
        error = np.average((step.output[:, 0] - y_N) ** 2, weights=weight_N)
        assert step.train_loss == pytest.approx(error, rel=1e-4)


def test_the_training_loss_of_classes_is_their_log_loss():
    x_ND, numbers, weight_N = rows()
    y_N = classes_of(numbers)
    examples = check(x_ND, y_N, weight_N, list("abc"), "classification")
    for step in ridge.path(list("abc"), "classification", STRENGTHS, None)(examples, x_ND):
        assert step.train_loss == pytest.approx(log_loss(step.output, y_N, weight_N), rel=1e-4)


def test_the_unit_of_numbers_does_not_matter():
    x_ND, y_N, weight_N = rows()
    metres, millimetres = (Ridge([], "regression").fit(x_ND, y_N * times, weight_N) for times in (1, 1000))
    assert np.allclose(metres.predict(x_ND) * 1000, millimetres.predict(x_ND), rtol=1e-5)


def test_numbers_that_are_all_the_same_are_predicted():
    x_ND, _, _ = rows()
    assert np.allclose(Ridge([], "regression").fit(x_ND, np.full(80, 7.0)).predict(x_ND), 7.0)


@pytest.mark.parametrize("l2", [1e-3, 1e-1, 10.0])
def test_probabilities_of_unseen_rows_are_as_sure_as_they_should_be(l2):
    x_ND, numbers, _ = rows(120, 100)
    unseen_ND, unseen, _ = rows(2000, 100, seed=1)
    limits = np.quantile(numbers, [1 / 3, 2 / 3])
    model = Ridge(list("abc"), l2=l2).fit(x_ND, np.digitize(numbers, limits))
    logits = np.log(model.predict_proba(unseen_ND))
    y_N = np.digitize(unseen, limits)
    losses = {factor: log_loss(softmax(factor * logits), y_N) for factor in (0.5, 0.7, 1.0, 1.4, 2.0)}
    assert losses[1.0] < min(losses[0.5], losses[2.0])
    assert losses[1.0] < 1.1 * min(losses.values())


def test_of_rare_classes_the_probabilities_have_their_shares():
    rng = np.random.default_rng(0)
    y_N = (rng.random(2000) < 0.05).astype(np.int64)
    x_ND = (y_N[:, None] * 1.5 + rng.normal(size=(2000, 4))).astype(np.float32)
    p_NK = Ridge(["often", "seldom"], l2=1e-2).fit(x_ND, y_N).predict_proba(x_ND)
    assert p_NK[:, 1].mean() == pytest.approx(y_N.mean(), rel=0.02)


def test_each_of_several_classes_has_its_own_sigmoid():
    x_ND, numbers, _ = rows(400)
    y_NK = np.stack([numbers > np.quantile(numbers, 0.9), numbers < np.quantile(numbers, 0.4)], axis=1).astype(float)
    head = Ridge(["high", "low"], "multilabel").fit(x_ND, y_NK).head_
    p_NK = head.predict_proba(x_ND)
    assert np.allclose(p_NK, sigmoid(x_ND @ head.weight.T + head.bias), atol=1e-5)
    assert np.allclose(p_NK.mean(axis=0), y_NK.mean(axis=0), rtol=0.1)


def test_only_a_sample_of_many_rows_makes_probabilities_and_all_make_the_slopes(monkeypatch):
    x_ND, numbers, _ = rows(300)
    y_N = classes_of(numbers)
    whole = Ridge(list("abc")).fit(x_ND, y_N).head_.weight
    monkeypatch.setattr(ridge, "SAMPLE", 100)
    sampled = Ridge(list("abc")).fit(x_ND, y_N).head_.weight
    assert not np.array_equal(whole, sampled)
    factor = (whole * sampled).sum() / (whole**2).sum()
    assert factor == pytest.approx(1, abs=0.3)
    assert np.allclose(sampled / factor, whole, atol=1e-5 * np.abs(whole).max())
