import numpy as np
import pytest

from graft.tasks.common.solvers import logistic as solver
from graft.tasks.head import logistic
from graft.tasks.head.estimator import check
from graft.tasks.head.logistic import LogisticRegression

CLASSES = ["a", "b", "c"]
STRENGTHS = np.array([1.0, 0.1, 0.01])


def rows(task):
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(120, 6)).astype(np.float32)
    if task == "multilabel":
        return x_ND, (x_ND[:, :3] + rng.normal(size=(120, 3)) > 0).astype(float)
    return x_ND, (x_ND[:, :3] + rng.normal(size=(120, 3))).argmax(axis=1)


@pytest.mark.parametrize(("task", "link"), [("classification", "softmax"), ("multilabel", "sigmoid")])
def test_it_is_the_solvers_solution(task, link):
    x_ND, target = rows(task)
    weight_N = np.linspace(1, 2, 120)
    step = solver.fit(x_ND, target, weight_N, 3, 0.05, link=link, tolerance=1e-5)
    head = LogisticRegression(CLASSES, task, l2=0.05).fit(x_ND, target, weight_N).head_
    assert np.array_equal(head.weight, step.weight_KD)
    assert np.array_equal(head.bias, step.bias_K)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_the_path_has_what_each_strength_has_by_itself(task):
    x_ND, target = rows(task)
    walk = logistic.path(CLASSES, task, STRENGTHS, 1e-6, 1000, None)
    steps = list(walk(check(x_ND, target, None, CLASSES, task), x_ND[:9]))
    assert [step.settings for step in steps] == [{"l2": l2} for l2 in STRENGTHS]
    for step in steps:
        alone = LogisticRegression(CLASSES, task, tolerance=1e-6, **step.settings).fit(x_ND, target)
        assert np.allclose(step.output, alone.predict_proba(x_ND[:9]), atol=1e-4)
        assert np.array_equal(step.output, step.head.predict_proba(x_ND[:9]))
        assert step.converged
