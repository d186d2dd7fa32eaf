import numpy as np
import pytest

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.head.class_weights import check_class_weight, weigh, weight_by_class

CLASSES = ["ant", "bee", "wasp"]
Y_N = np.array([0, 0, 0, 0, 1, 1, 2])
WEIGHT_N = np.array([1.0, 1.0, 1.0, 2.0, 0.5, 1.0, 1.0])


def test_without_class_weights_the_images_own_stay():
    assert np.array_equal(weigh(WEIGHT_N, Y_N, CLASSES, "none"), WEIGHT_N)


def test_balanced_classes_have_the_same_sum_of_weights_and_the_sum_of_all_stays():
    sums = np.bincount(Y_N, weigh(WEIGHT_N, Y_N, CLASSES, "balanced"))
    assert np.allclose(sums, WEIGHT_N.sum() / 3)


def test_given_weights_multiply_those_of_the_images():
    weighed = weigh(WEIGHT_N, Y_N, CLASSES, {"wasp": 5.0, "ant": 1.0, "bee": 2.0})
    assert np.allclose(weighed, WEIGHT_N * [1, 1, 1, 1, 2, 2, 5])


@pytest.mark.parametrize("class_weight", ["balanced", {"wasp": 5.0, "ant": 1.0, "bee": 2.0}])
def test_the_weight_of_a_class_is_what_the_weight_of_its_images_is_multiplied_by(class_weight):
    by_class_K = weight_by_class(WEIGHT_N, Y_N, CLASSES, class_weight)
    assert np.allclose(weigh(WEIGHT_N, Y_N, CLASSES, class_weight), WEIGHT_N * by_class_K[Y_N])


def test_a_class_without_an_image_has_a_finite_balanced_weight():
    assert np.isfinite(weight_by_class(np.ones(2), np.array([0, 1]), CLASSES, "balanced")).all()


@pytest.mark.parametrize("right", ["none", "balanced", {"ant": 1.0, "bee": 2.0, "wasp": 0.1}])
def test_weights_for_each_class_are_allowed(right):
    check_class_weight(right, CLASSES, "classification")


def test_a_class_that_there_is_not_and_one_that_is_missing_are_named_in_one_error():
    with pytest.raises(ParamsError) as caught:
        check_class_weight({"ant": 1.0, "be": 2.0, "wasp": 1.0}, CLASSES, "classification")
    told = str(caught.value)
    assert "`head.class_weight`" in told
    assert "no class is called be" in told
    assert "none for bee" in told
    assert "allowed: ant, bee, wasp" in told
    assert "did you mean `bee`?" in told


def test_a_class_without_a_weight_is_named():
    with pytest.raises(ParamsError, match="none for wasp"):
        check_class_weight({"ant": 1.0, "bee": 2.0}, CLASSES, "classification")


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("weight", ["balanced", {"ant": 1.0}])
def test_classes_are_weighed_only_where_each_image_has_one(task, weight):
    check_class_weight("none", [], task)
    with pytest.raises(ParamsError, match=rf"`head.class_weight`(.|\n)*{task}"):
        check_class_weight(weight, [], task)
