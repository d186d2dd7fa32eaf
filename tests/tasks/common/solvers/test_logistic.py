import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from graft.tasks.common.core import scratch
from graft.tasks.common.heads.base import softmax
from graft.tasks.common.solvers import lbfgs, logistic, objective
from graft.tasks.common.solvers.logistic import Parts, fit, path
from graft.tasks.common.solvers.principal_axes import rotate

K, D = 4, 12


@pytest.fixture(scope="module")
def data():
    """Three hundred features of four classes that overlap, as a backbone might give them; classes, and ones."""
    rng = np.random.default_rng(0)
    y_N = rng.integers(0, K, 300)
    x_ND = rng.normal(size=(K, D))[y_N] + 1.5 * rng.normal(size=(300, D))
    return (5 + x_ND * np.geomspace(0.1, 10, D)).astype(np.float32), y_N, np.ones(300)


@pytest.fixture(scope="module")
def several(data):
    """The same features, with two classes that go with them and one at random: (N, 3) zeros and ones."""
    x_ND, y_N, weight_N = data
    random_N = np.random.default_rng(1).integers(0, 2, len(y_N))
    return x_ND, np.column_stack([y_N % 2, y_N > 2, random_N]).astype(float), weight_N


def solve(x_ND, target, weight_N, l2=1e-2, tolerance=1e-7, k=K, **more):
    return fit(x_ND, target, weight_N, k, l2, tolerance=tolerance, **more)


def standard(x_ND, weight_N):
    """(standardised features, the basis that says how)."""
    found, _ = rotate(x_ND, weight_N, None)
    return (x_ND - found.mean_D) / found.scale_D, found


def logits(step, x_ND):
    return x_ND @ step.weight_KD.T.astype(float) + step.bias_K


def loss_of(logits_NK, weight_KD, target, weight_N, l2):
    """The module's own definition, written down plainly; weights are those of standardised features."""
    if target.ndim == 1:
        loss_N = -np.log(softmax(logits_NK)[np.arange(len(target)), target])
    else:
        loss_N = np.logaddexp(0, (1 - 2 * target) * logits_NK).sum(axis=1)
    return np.average(loss_N, weights=weight_N) + l2 / 2 * (weight_KD**2).sum()


def loss_at(step, x_ND, target, weight_N):
    _, found = standard(x_ND, weight_N)
    return loss_of(logits(step, x_ND), step.weight_KD * found.scale_D, target, weight_N, step.l2)


def reference(x_ND, target, weight_N, l2, scale=1):
    z_ND, _ = standard(x_ND, weight_N)
    found = LogisticRegression(C=scale / (weight_N.sum() * l2), tol=1e-10, max_iter=20_000)
    return z_ND, found.fit(z_ND, target, sample_weight=weight_N)


@pytest.mark.parametrize("l2", [10.0, 1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("rows", [300, 10])
def test_the_loss_at_convergence_is_scikit_learns(data, l2, rows):
    x_ND, y_N, weight_N = (array[:rows] for array in data)
    z_ND, theirs = reference(x_ND, y_N, weight_N, l2)
    expected = loss_of(theirs.decision_function(z_ND), theirs.coef_, y_N, weight_N, l2)

    step = solve(x_ND, y_N, weight_N, l2)

    assert step.train_loss == pytest.approx(expected, rel=1e-4)
    assert (logits(step, x_ND).argmax(axis=1) == theirs.predict(z_ND)).mean() > 0.999


def test_the_loss_of_weighted_rows_is_scikit_learns(data):
    x_ND, y_N, _ = data
    weight_N = np.random.default_rng(1).uniform(0.2, 4, len(y_N))
    z_ND, theirs = reference(x_ND, y_N, weight_N, 1e-2)

    expected = loss_of(theirs.decision_function(z_ND), theirs.coef_, y_N, weight_N, 1e-2)

    assert solve(x_ND, y_N, weight_N).train_loss == pytest.approx(expected, rel=1e-4)


def test_two_classes_are_scikit_learns_too(data):
    x_ND, y_N, weight_N = data
    y_N = y_N % 2
    # scikit-learn has one row for two classes: half of it each way has the same logits and half the penalty
    z_ND, theirs = reference(x_ND, y_N, weight_N, 1e-2, scale=2)
    half_N = theirs.decision_function(z_ND) / 2
    half_2D = np.vstack([-theirs.coef_, theirs.coef_]) / 2

    expected = loss_of(np.stack([-half_N, half_N], axis=1), half_2D, y_N, weight_N, 1e-2)

    assert solve(x_ND, y_N, weight_N, k=2).train_loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("l2", [1.0, 1e-3])
def test_several_classes_a_row_are_as_many_binary_regressions_of_scikit_learns(several, l2):
    x_ND, y_NK, weight_N = several
    step = solve(x_ND, y_NK, weight_N, l2, k=3, link="sigmoid")

    for k in range(3):
        z_ND, theirs = reference(x_ND, y_NK[:, k].astype(int), weight_N, l2)
        assert np.allclose(logits(step, x_ND)[:, k], theirs.decision_function(z_ND), atol=2e-3)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_loss_that_is_told_is_that_of_the_solution(data, several, link):
    case = data if link == "softmax" else several
    step = solve(*case, k=K if link == "softmax" else 3, link=link)

    assert step.train_loss == pytest.approx(loss_at(step, *case), rel=1e-5)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_gradient_is_that_of_the_loss(data, several, link):
    x_ND, target, weight_N = data if link == "softmax" else several
    k = K if link == "softmax" else 3
    with logistic._problem(x_ND, target, weight_N, k, link, None) as problem:
        at = np.random.default_rng(3).normal(size=k * (D + 1))

        def loss(flat):
            return problem.evaluate(flat.reshape(D + 1, k), 0.1)[0]

        def gradient(flat):
            return problem.evaluate(flat.reshape(D + 1, k), 0.1)[1].ravel()

        # products are float32, so that differences must be taken over more than rounding
        assert check_grad(loss, gradient, at, epsilon=1e-2) < 0.03 * np.linalg.norm(gradient(at))


def test_a_tiny_loss_is_not_lost_in_rounding():
    """At a loss of 1e-6, 1 - p in float32 is one of a few numbers."""
    logits_BK = np.array([[16.0, 0.0, 1.0]], np.float32)
    expected = -np.log(softmax(logits_BK.astype(float))[0, 0])

    loss_B, _ = objective._softmax_residual(logits_BK, np.array([0]))

    assert loss_B[0] == pytest.approx(expected, rel=1e-4)
    assert logits_BK[0, 0] == pytest.approx(-logits_BK[0, 1:].sum(), rel=1e-6)


def test_a_probability_of_nearly_zero_leaves_the_loss_finite():
    for residual, target in (
        (objective._softmax_residual, np.array([1])),
        (objective._sigmoid_residual, np.array([[0.0, 1.0]])),
    ):
        loss_B, _ = residual(np.array([[2000.0, -2000.0]], np.float32), target)
        assert loss_B[0] == pytest.approx(4000, rel=1e-6)


def test_the_bias_is_not_penalised(data):
    x_ND, y_N, _ = data
    weight_N = np.where(y_N == 0, 5.0, 1.0)
    share_K = np.array([weight_N[y_N == k].sum() for k in range(K)]) / weight_N.sum()

    p_NK = softmax(logits(solve(x_ND, y_N, weight_N, l2=1e4), x_ND))

    assert np.allclose(p_NK, share_K, atol=1e-2)


def test_a_weight_of_two_is_the_same_as_a_row_twice(data):
    x_ND, y_N, _ = data
    times = np.where(np.arange(len(y_N)) % 3 == 0, 2, 1)
    twice = np.repeat(np.arange(len(y_N)), times)

    weighted = solve(x_ND, y_N, times.astype(float))
    repeated = solve(x_ND[twice], y_N[twice], np.ones(len(twice)))

    assert weighted.train_loss == pytest.approx(repeated.train_loss, rel=1e-6)
    assert np.allclose(logits(weighted, x_ND), logits(repeated, x_ND), atol=1e-3)


def test_the_scale_of_all_weights_has_no_effect(data):
    x_ND, y_N, weight_N = data
    one, seven = (solve(x_ND, y_N, times * weight_N) for times in (1, 7))

    assert np.allclose(logits(one, x_ND), logits(seven, x_ND), atol=1e-3)


def test_a_solution_within_the_tolerance_is_called_converged(data):
    assert solve(*data, tolerance=1e-5).converged


def test_a_solution_that_ran_out_of_steps_is_not_called_converged(data):
    assert not solve(*data, l2=1e-4, tolerance=1e-9, max_iterations=2).converged


def test_a_tolerance_below_rounding_ends_all_the_same(data):
    step = solve(*data, tolerance=1e-15)

    assert not step.converged
    assert step.train_loss == pytest.approx(solve(*data).train_loss, rel=1e-6)


def test_classes_that_a_plane_parts_are_learned_almost_without_a_loss(data):
    x_ND, y_N, weight_N = data
    parted_ND = x_ND + 100 * np.eye(K, D, dtype=np.float32)[y_N]

    step = solve(parted_ND, y_N, weight_N, l2=1e-8, tolerance=1e-6)

    assert step.converged
    assert step.train_loss < 1e-4
    assert np.isfinite(step.weight_KD).all()


def test_a_class_without_rows_is_not_predicted(data):
    x_ND, y_N, weight_N = data
    p_NK = softmax(logits(solve(x_ND, y_N, weight_N, k=K + 1), x_ND))

    assert p_NK[:, K].max() < 1e-2


def test_features_that_never_vary_give_the_classes_shares():
    y_N = np.array([0, 0, 0, 1])
    p_NK = softmax(logits(solve(np.full((4, 3), 2, np.float32), y_N, np.ones(4), k=2), np.full((4, 3), 2.0)))

    assert np.allclose(p_NK, [0.75, 0.25], atol=1e-4)


@pytest.mark.parametrize("sums", [2**30, 1])
def test_the_same_data_give_the_same_bytes(data, monkeypatch, sums):
    monkeypatch.setattr(objective, "SUMS", sums)
    one, other = solve(*data), solve(*data)

    assert one.weight_KD.tobytes() == other.weight_KD.tobytes()


def test_the_number_of_cores_changes_nothing(data, monkeypatch):
    many = solve(*data)
    monkeypatch.setattr(logistic, "cores", lambda: 1)

    assert solve(*data).weight_KD.tobytes() == many.weight_KD.tobytes()


def test_rows_from_a_file_are_learned_like_rows_in_memory(data, tmp_path, monkeypatch):
    x_ND, y_N, weight_N = data
    np.save(tmp_path / "x.npy", x_ND)
    in_memory = solve(x_ND, y_N, weight_N)
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)

    mapped = solve(np.load(tmp_path / "x.npy", mmap_mode="r"), y_N, weight_N, scratch=tmp_path / "scratch")

    assert mapped.weight_KD.tobytes() == in_memory.weight_KD.tobytes()


def test_a_path_has_the_solutions_of_its_strengths(data):
    x_ND, y_N, weight_N = data
    strengths = np.geomspace(1e2, 1e-5, 15)

    steps = list(path(x_ND, y_N, weight_N, K, strengths, tolerance=1e-6))

    assert [step.l2 for step in steps] == list(strengths)
    assert all(step.converged for step in steps)
    for step in steps[::4]:
        assert step.train_loss == pytest.approx(solve(*data, l2=step.l2).train_loss, rel=1e-5)


def test_strengths_on_a_path_help_each_other(data):
    x_ND, y_N, weight_N = data
    strengths = np.geomspace(1e-1, 1e-5, 17)

    together = sum(step.iterations for step in path(x_ND, y_N, weight_N, K, strengths))
    apart = sum(next(path(x_ND, y_N, weight_N, K, [l2])).iterations for l2 in strengths)

    assert together < apart / 2


@pytest.mark.parametrize("strengths", [[1e-2], [1e-2, 1e-2, 1e-2, 1e-3], [1e-4, 1.0, 1e-3]])
def test_strengths_may_come_in_any_order_and_twice(data, strengths):
    x_ND, y_N, weight_N = data

    for step in path(x_ND, y_N, weight_N, K, strengths, tolerance=1e-6):
        assert step.train_loss == pytest.approx(solve(*data, l2=step.l2).train_loss, rel=1e-5)


def test_what_is_left_of_a_path_is_not_computed(data):
    x_ND, y_N, weight_N = data
    steps = path(x_ND, y_N, weight_N, K, np.geomspace(1, 1e-4, 5))

    assert next(steps).l2 == 1
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


def threads_of_products():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_paths_side_by_side_leave_the_process_its_threads(data):
    """As many as before while the caller has a step, and when paths end in the order in which they began."""
    x_ND, y_N, weight_N = data
    with threadpool_limits(2, user_api="blas"):
        before = threads_of_products()
        one, other = (path(x_ND, y_N, weight_N, K, [1.0, 0.1]) for _ in range(2))
        for _ in zip(one, other, strict=False):
            assert threads_of_products() == before
        one.close()
        other.close()
        assert threads_of_products() == before


@pytest.mark.parametrize("k", [2, K])
def test_a_part_has_the_solution_of_its_rows_standardised_like_the_whole(data, k):
    x_ND, y_N, weight_N = data
    z_ND, _ = standard(x_ND, weight_N)
    y_N = y_N % k
    strength = 0.02 / (2 if k == 2 else 1)  # of two classes, theirs has one row of weights: the difference of ours
    parts = Parts(x_ND, weight_N, "softmax", None)
    for part in (np.arange(0, 300, 2), np.arange(100, 300), np.arange(40)):
        step = parts.fit(part, y_N[part], weight_N[part], k, 0.02, tolerance=1e-7)
        theirs = LogisticRegression(C=1 / (strength * len(part)), tol=1e-9, max_iter=10_000).fit(z_ND[part], y_N[part])
        ours = softmax(x_ND @ step.weight_KD.T + step.bias_K)
        assert np.allclose(ours, theirs.predict_proba(z_ND), atol=1e-4)
        assert step.converged


def test_a_part_knows_nothing_of_those_before(data):
    """Or models that judge held-out labels would begin with models that have learned them."""
    x_ND, y_N, weight_N = data
    first, second = np.arange(0, 240), np.arange(60, 300)
    parts, alone = Parts(x_ND, weight_N, "softmax", None), Parts(x_ND, weight_N, "softmax", None)
    parts.fit(first, (y_N[first] + 1) % K, weight_N[first], K, 1e-3, tolerance=1e-2)
    after, fresh = (each.fit(second, y_N[second], weight_N[second], K, 1e-3, tolerance=1e-2) for each in (parts, alone))
    assert np.array_equal(after.weight_KD, fresh.weight_KD)


def test_parts_on_the_disk_are_those_in_memory(data, tmp_path, monkeypatch):
    x_ND, y_N, weight_N = data
    part = np.arange(0, 300, 3)
    solved = [Parts(x_ND, weight_N, "softmax", tmp_path).fit(part, y_N[part], weight_N[part], K, 0.02)]
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    mapped = Parts(x_ND, weight_N, "softmax", tmp_path)
    assert isinstance(mapped.rows(part), np.memmap)
    solved.append(mapped.fit(part, y_N[part], weight_N[part], K, 0.02))
    assert np.array_equal(solved[0].weight_KD, solved[1].weight_KD)


@pytest.fixture
def no_cache(monkeypatch):
    """As if no sums fitted into the processor's cache, which those of many classes do not."""
    for module in (objective, lbfgs, logistic):
        monkeypatch.setattr(module, "CACHED", 0)


@pytest.mark.parametrize("l2", [1.0, 1e-4])
def test_sums_outside_the_cache_change_no_solution(data, no_cache, monkeypatch, l2):
    outside = solve(*data, l2=l2)
    monkeypatch.undo()
    inside = solve(*data, l2=l2)

    assert outside.converged
    assert outside.train_loss == pytest.approx(inside.train_loss, rel=1e-6)
    assert np.allclose(softmax(logits(outside, data[0])), softmax(logits(inside, data[0])), atol=1e-4)


def test_many_classes_of_two_rows_are_learned_like_scikit_learns(no_cache):
    y_N = np.repeat(np.arange(30), 2)
    rng = np.random.default_rng(5)
    x_ND = (rng.normal(size=(30, 80))[y_N] + rng.normal(size=(60, 80))).astype(np.float32)
    z_ND, theirs = reference(x_ND, y_N, np.ones(60), 1e-2)
    expected = loss_of(theirs.decision_function(z_ND), theirs.coef_, y_N, np.ones(60), 1e-2)

    step = solve(x_ND, y_N, np.ones(60), k=30, tolerance=1e-6)

    assert step.train_loss == pytest.approx(expected, rel=1e-4)
    assert np.allclose(softmax(logits(step, x_ND)), theirs.predict_proba(z_ND), atol=1e-3)


def test_steps_outside_the_cache_reach_the_optimum_of_those_inside(data, no_cache, monkeypatch):
    """The loss to a millionth, along a path down to the weakest strengths."""
    x_ND, y_N, weight_N = data
    strengths = np.geomspace(1e2, 1e-5, 15)
    outside = list(path(x_ND, y_N, weight_N, K, strengths, tolerance=1e-7))
    monkeypatch.undo()
    inside = list(path(x_ND, y_N, weight_N, K, strengths, tolerance=1e-7))

    for one, other in zip(outside, inside, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)


def test_a_strength_starts_from_the_last_solution_where_an_extrapolation_is_worse(data, no_cache):
    with logistic._problem(*data, K, "softmax", None) as problem:
        (last,) = logistic._walk(problem, [1e-3], 1e-5, 1000, problem.guess())
        astray_RK = 10 * last.theta_RK

        assert logistic._nearer(problem, 1e-3, astray_RK, last.theta_RK) is last.theta_RK
        assert logistic._nearer(problem, 1e-3, last.theta_RK, astray_RK) is last.theta_RK


def test_a_warm_start_reaches_the_optimum_of_a_start_from_nothing(data):
    """The loss to a millionth."""
    with logistic._problem(*data, K, "softmax", None) as problem:
        (near,) = logistic._walk(problem, [1e-1], 1e-3, 1000, problem.guess())
        warm, cold = (
            next(logistic._walk(problem, [1e-3], 1e-7, 1000, start_RK)) for start_RK in (near.theta_RK, problem.guess())
        )

    assert warm.loss == pytest.approx(cold.loss, rel=1e-6)


def test_the_number_of_cores_changes_nothing_outside_the_cache(data, no_cache, monkeypatch):
    monkeypatch.setattr(lbfgs, "PIECE", 7)
    many = solve(*data)
    monkeypatch.setattr(logistic, "cores", lambda: 1)

    assert solve(*data).weight_KD.tobytes() == many.weight_KD.tobytes()


@pytest.mark.parametrize("place", ["weights", "biases"])
def test_a_gradient_is_within_a_tolerance_if_its_largest_entry_is(data, place):
    with logistic._problem(*data, K, "softmax", None) as problem:
        gradient_RK = np.random.default_rng(6).normal(size=(D + 1, K))
        gradient_RK[-1] *= 100 if place == "biases" else 1e-3
        largest = max(np.abs(problem.basis.axes_DR @ gradient_RK[:-1]).max(), np.abs(gradient_RK[-1]).max())

        assert problem.within(gradient_RK, 1.001 * largest)
        assert not problem.within(gradient_RK, 0.999 * largest)


def test_few_rows_of_many_classes_are_summed_in_few_parts():
    assert objective._parts(1_000, 1_000, 1_000) == 1_000 // objective.ROWS
    assert objective._parts(100, 100, 2_000) == 2
    assert objective._parts(100, 100, 10) == objective.SLICES
