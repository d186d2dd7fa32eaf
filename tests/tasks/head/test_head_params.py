import numpy as np
import pytest

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.sections import parse_section
from graft.tasks.head.params import HeadParams


def parse(**values):
    return parse_section(HeadParams, values, "head")


def test_the_default_path_is_that_of_kornblith_and_others():
    params = parse()
    strengths = np.geomspace(params.l2_max, params.l2_min, params.strengths)
    assert np.allclose(strengths[::-1], np.logspace(-6, 5, 45))


@pytest.mark.parametrize("folds", ["auto", 0, 2, 10])
def test_folds_may_be_auto_none_or_at_least_two(folds):
    assert parse(folds=folds).folds == folds


@pytest.mark.parametrize("folds", [1, -1, 2.5, "five"])
def test_other_folds_are_refused(folds):
    with pytest.raises(ParamsError, match=r"`head.folds`: must be auto, 0, or a whole number from 2 on"):
        parse(folds=folds)


def test_classes_that_yaml_reads_as_numbers_are_names():
    assert parse(class_weight={0: 2, 1.5: 1}).class_weight == {"0": 2.0, "1.5": 1.0}


@pytest.mark.parametrize(
    "wrong", ["balance", {}, {"a": 0}, {"a": -1.0}, {"a": "much"}, {"a": float("nan")}, {"a": float("inf")}, [1, 2], 3]
)
def test_other_class_weights_are_refused(wrong):
    with pytest.raises(ParamsError, match=r"`head\.class_weight`: must be none, balanced, or {class: a number above 0"):
        parse(class_weight=wrong)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "svm"), ("select", "f1"), ("knn_k", []), ("knn_k", [0]), ("knn_temperature", 0), ("strengths", 0),
        ("mlp_dropout", [1.0]), ("mlp_dropout", []), ("mlp_weight_decay", [-0.1]), ("mlp_hidden", 0), ("mlp_epochs", 0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_key(key, value):
    with pytest.raises(ParamsError, match=rf"`head\.{key}"):
        parse(**{key: value})


@pytest.mark.parametrize("key", ["l2_max", "tolerance", "knn_temperature", "mlp_weight_decay"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_must_be_finite(key, value):
    with pytest.raises(ParamsError, match=rf"`head.{key}(.|\n)*finite"):
        parse_section(HeadParams, {key: [value] if key == "mlp_weight_decay" else value}, "head")
