import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression

from tasks.common import logistic
from tasks.common.heads import softmax
from tasks.common.logistic import Standardiser, Step, fit, path, search

K, D = 4, 12


@pytest.fixture(scope="module")
def data():
    """Three hundred features of four classes that overlap: standardised x, y and ones."""
    rng = np.random.default_rng(0)
    y_N = rng.integers(0, K, 300)
    x_ND = rng.normal(size=(K, D))[y_N] + 1.5 * rng.normal(size=(300, D))
    weight_N = np.ones(300)
    return Standardiser.fit(x_ND.astype(np.float32), weight_N)(x_ND.astype(np.float32)), y_N, weight_N


def solve(x_ND, y_N, weight_N, l2=1e-2, tolerance=1e-9, k=K):
    return fit(x_ND, y_N, weight_N, k, l2, np.zeros((k, x_ND.shape[1] + 1)), tolerance, 5000)


def loss_of(theta_KE, x_ND, y_N, weight_N, l2):
    """The module's own definition, written down plainly."""
    p_NK = softmax(x_ND @ theta_KE[:, :-1].T + theta_KE[:, -1])
    data_loss = -np.average(np.log(p_NK[np.arange(len(y_N)), y_N]), weights=weight_N)
    return data_loss + l2 / 2 * (theta_KE[:, :-1] ** 2).sum()


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_the_loss_at_convergence_is_scikit_learns(data, l2):
    x_ND, y_N, weight_N = data
    reference = LogisticRegression(C=1 / (len(y_N) * l2), tol=1e-10, max_iter=20_000).fit(x_ND, y_N)
    theirs = loss_of(np.column_stack([reference.coef_, reference.intercept_]), x_ND, y_N, weight_N, l2)
    assert solve(x_ND, y_N, weight_N, l2).train_loss == pytest.approx(theirs, rel=1e-4)


def test_the_loss_of_weighted_images_is_scikit_learns(data):
    x_ND, y_N, _ = data
    weight_N = np.random.default_rng(1).uniform(0.2, 4, len(y_N))
    reference = LogisticRegression(C=1 / (weight_N.sum() * 1e-2), tol=1e-10, max_iter=20_000)
    reference.fit(x_ND, y_N, sample_weight=weight_N)
    theirs = loss_of(np.column_stack([reference.coef_, reference.intercept_]), x_ND, y_N, weight_N, 1e-2)
    assert solve(x_ND, y_N, weight_N).train_loss == pytest.approx(theirs, rel=1e-4)


def test_two_classes_are_scikit_learns_too(data):
    x_ND, y_N, weight_N = data
    y_N = y_N % 2
    ours = solve(x_ND, y_N, weight_N, k=2)
    # scikit-learn has one row for two classes: half of it each way has the same logits and half the penalty
    reference = LogisticRegression(C=2 / (len(y_N) * 1e-2), tol=1e-10, max_iter=20_000).fit(x_ND, y_N)
    half = np.column_stack([reference.coef_, reference.intercept_])[0] / 2
    assert ours.train_loss == pytest.approx(loss_of(np.stack([-half, half]), x_ND, y_N, weight_N, 1e-2), rel=1e-4)


def test_the_loss_that_is_told_is_that_of_the_solution(data):
    step = solve(*data)
    assert step.train_loss == pytest.approx(loss_of(step.theta_KE, *data, 1e-2), rel=1e-12)


def test_the_gradient_is_that_of_the_loss(data, monkeypatch):
    seen = {}
    original = logistic.minimize

    def spy(fun, start, **options):
        seen["fun"] = fun
        return original(fun, start, **options)

    monkeypatch.setattr(logistic, "minimize", spy)
    solve(*data)
    at = np.random.default_rng(3).normal(size=K * (D + 1))
    assert check_grad(lambda t: seen["fun"](t)[0], lambda t: seen["fun"](t)[1], at) < 1e-5


def test_the_solution_is_a_minimum(data):
    step = solve(*data)
    rng = np.random.default_rng(4)
    for _ in range(20):
        nudged = step.theta_KE + 1e-2 * rng.normal(size=step.theta_KE.shape)
        assert loss_of(nudged, *data, 1e-2) > step.train_loss


def test_the_bias_is_not_penalised(data):
    x_ND, y_N, _ = data
    weight_N = np.where(y_N == 0, 5.0, 1.0)
    theta_KE = solve(x_ND, y_N, weight_N, l2=1e4).theta_KE
    share = np.array([weight_N[y_N == k].sum() for k in range(K)]) / weight_N.sum()
    assert np.allclose(softmax(theta_KE[None, :, -1])[0], share, atol=1e-3)


def test_a_weight_of_two_is_the_same_as_an_image_twice(data):
    x_ND, y_N, _ = data
    times = np.where(np.arange(len(y_N)) % 3 == 0, 2, 1)
    weighted = solve(x_ND, y_N, times.astype(float))
    twice = np.repeat(np.arange(len(y_N)), times)
    repeated = solve(x_ND[twice], y_N[twice], np.ones(len(twice)))
    assert weighted.train_loss == pytest.approx(repeated.train_loss, rel=1e-9)
    assert np.allclose(weighted.theta_KE, repeated.theta_KE, atol=1e-5)


def test_the_scale_of_all_weights_has_no_effect(data):
    x_ND, y_N, weight_N = data
    assert np.allclose(solve(x_ND, y_N, weight_N).theta_KE, solve(x_ND, y_N, 7 * weight_N).theta_KE, atol=1e-5)


def test_a_solution_within_the_tolerance_is_called_converged(data):
    assert solve(*data, tolerance=1e-5).converged


def test_a_solution_that_ran_out_of_steps_is_not_called_converged(data):
    x_ND, y_N, weight_N = data
    assert not fit(x_ND, y_N, weight_N, K, 1e-4, np.zeros((K, D + 1)), 1e-9, 2).converged


def test_the_same_data_give_the_same_bytes(data):
    assert solve(*data).theta_KE.tobytes() == solve(*data).theta_KE.tobytes()


def test_a_probability_of_nearly_zero_leaves_the_loss_finite():
    x_ND = np.array([[1000.0], [-1000.0], [1000.0]])
    step = fit(x_ND, np.array([0, 1, 1]), np.ones(3), 2, 1e-6, np.array([[5.0, 0], [-5.0, 0]]), 1e-6, 50)
    assert np.isfinite(step.train_loss)
    assert np.isfinite(step.theta_KE).all()


def test_a_path_starts_each_strength_where_the_one_before_ended(data):
    x_ND, y_N, weight_N = data
    strengths = np.geomspace(1, 1e-4, 5)
    warm = list(path(x_ND, y_N, weight_N, K, strengths, 1e-6, 5000))
    cold = [solve(x_ND, y_N, weight_N, l2, 1e-6) for l2 in strengths]
    assert [step.l2 for step in warm] == list(strengths)
    assert np.allclose([s.train_loss for s in warm], [s.train_loss for s in cold], rtol=1e-6)
    assert sum(s.iterations for s in warm) < sum(s.iterations for s in cold)


def test_standardised_features_have_mean_zero_and_a_variance_of_at_most_one():
    raw_ND = np.random.default_rng(0).normal(3, np.geomspace(0.01, 10, 8), (500, 8)).astype(np.float32)
    x_ND = Standardiser.fit(raw_ND, np.ones(500))(raw_ND)
    assert np.allclose(x_ND.mean(axis=0), 0, atol=1e-6)
    assert (x_ND.std(axis=0) <= 1).all()
    assert x_ND.std(axis=0)[-1] > 0.9


def test_a_feature_that_hardly_varies_is_not_blown_up():
    raw_ND = np.random.default_rng(0).normal(0, [1, 1, 1e-6], (500, 3)).astype(np.float32)
    assert Standardiser.fit(raw_ND, np.ones(500))(raw_ND).std(axis=0)[2] < 1e-4


def test_features_that_never_vary_stay_finite():
    raw_ND = np.full((10, 3), 4.0, np.float32)
    assert (Standardiser.fit(raw_ND, np.ones(10))(raw_ND) == 0).all()


def test_standardising_weighs_images():
    raw_ND = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    times = np.arange(20) % 3 + 1
    weighted = Standardiser.fit(raw_ND, times.astype(float))
    repeated = Standardiser.fit(np.repeat(raw_ND, times, axis=0), np.ones(times.sum()))
    assert np.allclose(weighted.mean_D, repeated.mean_D)
    assert np.allclose(weighted.scale_D, repeated.scale_D)


def test_a_folded_head_gives_the_same_logits_on_raw_features():
    rng = np.random.default_rng(0)
    raw_ND = rng.normal(5, np.geomspace(0.1, 10, D), (50, D)).astype(np.float32)
    scale = Standardiser.fit(raw_ND, np.ones(50))
    theta_KE = rng.normal(size=(K, D + 1))
    head = scale.fold(theta_KE, list("abcd"))
    expected = scale(raw_ND) @ theta_KE[:, :-1].T + theta_KE[:, -1]
    assert np.allclose(raw_ND.astype(np.float64) @ head.weight.T + head.bias, expected, atol=1e-4)
    assert head.weight.dtype == head.bias.dtype == np.float32


def steps_of(scores):
    """Steps of one feature and two classes whose validation losses go as told: the closer to 0, the surer."""
    for n, score in enumerate(scores):
        yield Step(10.0**-n, np.array([[score, 0.0], [-score, 0.0]]), 0.0, 1, True)


def search_of(scores, by="log_loss", patience=3):
    x_ND, y_N = np.array([[1.0], [-1.0]]), np.array([0, 1])
    return search(steps_of(scores), x_ND, y_N, np.ones(2), by, patience, lambda: None)


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
    x_ND, y_N = np.array([[1.0], [1.0], [-100.0]]), np.array([0, 0, 0])
    steps = [
        Step(1.0, np.array([[5.0, 0.0], [-5.0, 0.0]]), 0.0, 1, True),  # two right, the third very wrong
        Step(0.1, np.array([[0.0, -0.1], [0.0, 0.1]]), 0.0, 1, True),  # none right, and hardly wrong
    ]
    chosen = {by: search(iter(steps), x_ND, y_N, np.ones(3), by, 9, lambda: None)[1] for by in ("accuracy", "log_loss")}
    assert chosen == {"accuracy": 0, "log_loss": 1}


def test_each_strength_is_reported():
    calls = []
    search(steps_of([0.1, 0.2]), np.array([[1.0]]), np.array([0]), np.ones(1), "log_loss", 3, lambda: calls.append(1))
    assert len(calls) == 2
