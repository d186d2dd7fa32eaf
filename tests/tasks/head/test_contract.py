"""What every estimator does alike, for each task that it is for."""

import inspect

import numpy as np
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.heads.load import load_head
from graft.tasks.head.knn import NearestNeighbours
from graft.tasks.head.logistic import LogisticRegression
from graft.tasks.head.mlp import Mlp
from graft.tasks.head.ridge import Ridge

D = 6
QUICK = {Mlp: {"hidden": 8, "epochs": 3}, NearestNeighbours: {"k": 5}}
CLASSES = ("classification", "multilabel")
FOR = {LogisticRegression: CLASSES, Ridge: (*CLASSES, "regression")}
FOR |= {NearestNeighbours: FOR[Ridge], Mlp: FOR[Ridge]}
EXACT = (LogisticRegression, Ridge)
"""Of which a solution is the only one, so that a row of weight two is the row twice."""

PAIRS = [(kind, task) for kind, tasks in FOR.items() for task in tasks]
each = pytest.mark.parametrize(("kind", "task"), PAIRS, ids=[f"{kind.__name__}-{task}" for kind, task in PAIRS])


def data(task, n=60, d=D, seed=0):
    """Rows whose first feature tells most of the target."""
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(0, 1, (n, d)).astype(np.float32)
    order = x_ND[:, 0] + 0.3 * rng.normal(size=n)
    if task == "classification":
        return x_ND, np.digitize(order, np.quantile(order, [1 / 3, 2 / 3])).astype(np.int64)
    if task == "multilabel":
        return x_ND, np.stack([order > 0, x_ND.sum(axis=1) > 0, order < -0.5], axis=1).astype(np.float64)
    return x_ND, 100 + 10 * order


def make(kind, task, **changes):
    return kind([] if task == "regression" else ["a", "b", "c"], task, **{**QUICK.get(kind, {}), **changes})


def told(estimator, x_ND):
    """All that an estimator says of rows."""
    return estimator.head_.output(x_ND)


@pytest.mark.parametrize("kind", FOR)
def test_the_constructor_only_stores(kind):
    names = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    values = {name: object() for name in names}
    assert vars(kind(**values)) == values


@each
def test_fit_returns_the_estimator(kind, task):
    estimator = make(kind, task)
    assert estimator.fit(*data(task)) is estimator


@each
def test_what_is_learned_ends_in_an_underscore_and_nothing_else_changes(kind, task):
    estimator = make(kind, task)
    before = dict(vars(estimator))
    estimator.fit(*data(task))
    assert all(name in before or name.endswith("_") for name in vars(estimator))
    assert {name: vars(estimator)[name] for name in before} == before


@each
def test_an_estimator_that_has_learned_nothing_says_so(kind, task):
    with pytest.raises(ValueError, match="call fit first"):
        make(kind, task).predict(data(task)[0])


@each
def test_it_learns(kind, task):
    x_ND, target = data(task)
    estimator = make(kind, task, **({"epochs": 40, "learning_rate": 0.03} if kind is Mlp else {})).fit(x_ND, target)
    unseen, right = data(task, seed=1)
    predicted = estimator.predict(unseen)
    if task == "regression":
        assert ((predicted - right) ** 2).mean() < 0.8 * right.var()
    else:
        chance = max(np.mean(target == value) for value in np.unique(target))
        assert (predicted == right).mean() > chance + 0.1


@each
def test_a_second_fit_forgets_the_first(kind, task):
    x_ND, target = data(task)
    again = make(kind, task).fit(x_ND[::-1] * 2, target).fit(x_ND, target)
    assert np.array_equal(told(again, x_ND), told(make(kind, task).fit(x_ND, target), x_ND))


@each
def test_the_same_rows_give_the_same_bits(kind, task):
    x_ND, target = data(task)
    assert told(make(kind, task).fit(x_ND, target), x_ND).tobytes() == (
        told(make(kind, task).fit(x_ND.copy(), target.copy()), x_ND).tobytes()
    )


@each
def test_what_it_is_given_stays_as_it_was(kind, task):
    x_ND, target = data(task)
    weight_N = np.linspace(1, 2, len(x_ND))
    before = x_ND.copy(), target.copy(), weight_N.copy()
    make(kind, task).fit(x_ND, target, weight_N)
    assert all(np.array_equal(*both) for both in zip(before, (x_ND, target, weight_N), strict=True))


@each
def test_weights_count(kind, task):
    x_ND, target = data(task)
    weight_N = np.where(np.arange(len(x_ND)) % 2, 0.01, 1)
    plain, weighted = make(kind, task).fit(x_ND, target), make(kind, task).fit(x_ND, target, weight_N)
    assert not np.allclose(told(plain, x_ND), told(weighted, x_ND))


@each
def test_the_scale_of_all_weights_does_not_count(kind, task):
    x_ND, target = data(task)
    weight_N = np.linspace(1, 2, len(x_ND))
    one, other = (make(kind, task).fit(x_ND, target, times * weight_N) for times in (1, 8))
    assert np.allclose(told(one, x_ND), told(other, x_ND), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "task"), [(kind, task) for kind, task in PAIRS if kind in EXACT])
def test_a_weight_of_two_is_the_row_twice(kind, task):
    x_ND, target = data(task)
    times = np.where(np.arange(len(x_ND)) % 3 == 0, 2, 1)
    exact = {"tolerance": 1e-7} if kind is LogisticRegression else {}
    weighted = make(kind, task, **exact).fit(x_ND, target, times)
    repeated = make(kind, task, **exact).fit(np.repeat(x_ND, times, axis=0), np.repeat(target, times, axis=0))
    if kind is Ridge and task != "regression":  # how sure it is may differ: a row left out has a twin that is not
        one, other = (model.head_.weight for model in (weighted, repeated))
        lengths = [np.linalg.norm(weight_KD, axis=1)[:, None] for weight_KD in (one, other)]
        assert np.allclose(one / lengths[0], other / lengths[1], atol=1e-4)
    else:
        assert np.allclose(told(weighted, x_ND), told(repeated, x_ND), rtol=1e-3, atol=1e-4)


@each
def test_probabilities_are_probabilities(kind, task):
    if task == "regression":
        with pytest.raises(ValueError, match="no probabilities"):
            make(kind, task).fit(*data(task)).predict_proba(data(task)[0])
        return
    p_NK = make(kind, task).fit(*data(task)).predict_proba(data(task, seed=1)[0])
    assert p_NK.shape == (60, 3)
    assert ((p_NK >= 0) & (p_NK <= 1)).all()
    if task == "classification":
        assert np.allclose(p_NK.sum(axis=1), 1)


@each
def test_a_saved_head_predicts_the_same_without_the_estimator(kind, task, tmp_path):
    x_ND, target = data(task)
    estimator = make(kind, task).fit(x_ND, target)
    estimator.head_.save(tmp_path)
    assert np.array_equal(load_head(tmp_path).predict(x_ND), estimator.predict(x_ND))


@each
@pytest.mark.parametrize(("n", "d"), [(12, 40), (60, 1), (8, 8)], ids=["fewer rows", "one feature", "as many"])
def test_any_number_of_rows_and_features_will_do(kind, task, n, d):
    x_ND, target = data(task, n, d)
    output = told(make(kind, task).fit(x_ND, target), x_ND)
    assert np.isfinite(output).all()


@each
def test_features_that_never_vary_tell_nothing(kind, task):
    x_ND = np.full((60, D), 3.0, np.float32)
    target = data(task)[1]
    output = told(make(kind, task).fit(x_ND, target), x_ND)
    assert np.isfinite(output).all()
    assert np.allclose(output, output[0], atol=1e-6)


@each
def test_half_precision_features_are_features(kind, task):
    x_ND, target = data(task)
    half = x_ND.astype(np.float16)
    single = half.astype(np.float32)
    assert np.allclose(
        told(make(kind, task).fit(half, target), single), told(make(kind, task).fit(single, target), single)
    )


@each
@pytest.mark.parametrize("wrong", [np.zeros(5), np.zeros((0, D)), np.zeros((60, 0)), np.zeros((60, D, 1))])
def test_features_of_another_shape_are_refused(kind, task, wrong):
    with pytest.raises(ValueError, match=r"\(N, D\) are needed, got \("):
        make(kind, task).fit(wrong, data(task)[1])


@each
def test_targets_of_another_shape_are_refused(kind, task):
    x_ND, target = data(task)
    with pytest.raises(ValueError, match="a target of shape"):
        make(kind, task).fit(x_ND, target[1:])
    with pytest.raises(ValueError, match="a target of shape"):
        make(kind, task).fit(x_ND, target[:, None])


@each
def test_weights_of_another_shape_are_refused(kind, task):
    with pytest.raises(ValueError, match="weights of shape"):
        make(kind, task).fit(*data(task), np.ones(3))


@each
@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_weights_that_are_not_above_nought_are_refused(kind, task, wrong):
    weight_N = np.ones(60)
    weight_N[4] = wrong
    with pytest.raises(DataError, match="weights must be above 0"):
        make(kind, task).fit(*data(task), weight_N)


@each
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_with_the_row(kind, task, wrong):
    x_ND, target = data(task)
    x_ND[7, 2] = wrong
    with pytest.raises(DataError, match=f"row 7 are not finite(.|\n)*{wrong}"):
        make(kind, task).fit(x_ND, target)


@each
def test_a_class_without_a_row_is_refused_by_name(kind, task):
    x_ND, target = data(task)
    if task == "regression":
        target[3] = np.nan
        with pytest.raises(DataError, match="targets must be finite"):
            make(kind, task).fit(x_ND, target)
        return
    target = np.where(target == 1, 0, target) if task == "classification" else target * [1, 0, 1]
    with pytest.raises(DataError, match=r"a class has no image(.|\n)*got: +b"):
        make(kind, task).fit(x_ND, target)


@pytest.mark.parametrize("kind", FOR)
def test_codes_that_are_no_class_are_refused(kind):
    x_ND, target = data("classification")
    with pytest.raises(ValueError, match="codes from 0 to 2"):
        make(kind, "classification").fit(x_ND, target + 1)
    with pytest.raises(ValueError, match="zeros and ones"):
        make(kind, "multilabel").fit(x_ND, data("multilabel")[1] * 2)
