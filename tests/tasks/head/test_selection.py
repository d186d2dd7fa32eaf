import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.core.errors import DataError, ParamsError
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.heads import base
from graft.tasks.common.scoring.main_metric import loss
from graft.tasks.common.solvers import principal_axes
from graft.tasks.head import estimator, selection
from graft.tasks.head.params import HeadParams
from graft.tasks.head.selection import choose, class_weights, examples_of, hold_out, select_of, train

D = 6
QUICK = {"strengths": 5, "l2_max": 1.0, "l2_min": 1e-3, "mlp_epochs": 3, "mlp_hidden": 8, "knn_k": [1, 5]}


def pack_of(task="classification", n=120, views=0, seed=0, val=0.25):
    """Rows whose first feature tells most of the label; views of training images are shifted by a hundred."""
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(size=(n, D)).astype(np.float32)
    told = x_ND[:, 0] + 0.5 * rng.normal(size=n)
    label = {
        "classification": np.where(told > 0.5, "c", np.where(told > -0.5, "b", "a")),
        "multilabel": ["|".join(name for name, has in (("a", t > 0), ("b", t < 0.5)) if has) for t in told],
        "regression": (told * 10 + 100).astype(str),
    }[task]
    split = np.where(np.arange(n) < val * n, "val", "train")
    index = pd.DataFrame(
        {
            "image_id": [f"{i:032x}" for i in range(n)],
            "path": [f"{i}.png" for i in range(n)],
            "label": label,
            "task": task,
            "split": split,
            "group": pd.array([None] * n, "string"),
            "weight": 1.0,
            "pixels": [f"{i:032x}" for i in range(n)],
        }
    )
    seen = x_ND[split == "train"]
    views_VD = np.concatenate([seen + 100 * (view + 1) for view in range(views)]) if views else seen[:0]
    return FeatureSet(x_ND, views_VD, index, {})


def params(**changes):
    return HeadParams(**{**QUICK, **changes})


def places(pack, features):
    """Which row of the pack, or which view of which row, each row of features is."""
    all_of = {x.tobytes(): ("image", row) for row, x in enumerate(pack.stored_ND)}
    train = pack.rows("train")
    all_of |= {x.tobytes(): ("view", train[n % len(train)]) for n, x in enumerate(pack.views_VD)}
    return [all_of[x.tobytes()] for x in np.asarray(features)]


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("kind", ["auto", "logistic", "knn", "ridge", "mlp"])
@pytest.mark.parametrize("folds", [0, 3])
def test_every_kind_is_chosen_for_every_task_that_it_is_for(task, kind, folds):
    if (task, kind) == ("regression", "logistic"):
        with pytest.raises(ParamsError, match=r"`head.kind`(.|\n)*auto \| ridge"):
            choose(pack_of(task), params(kind=kind, folds=folds))
        return
    pack = pack_of(task)
    found = choose(pack, params(kind=kind, folds=folds))
    assert found.head.task == task
    assert found.head.classes == pack.classes
    assert found.found.output.shape == (len(found.held), len(pack.classes) or 1)
    assert not (pack.index["split"].iloc[found.held] == "test").any()


def test_auto_is_logistic_for_classes_and_ridge_for_numbers():
    kinds = {task: choose(pack_of(task), params()).kind for task in ("classification", "multilabel", "regression")}
    assert kinds == {"classification": "logistic", "multilabel": "logistic", "regression": "ridge"}


def test_without_folds_validation_decides_and_the_chosen_head_is_the_one_that_it_judged():
    pack = pack_of()
    found = choose(pack, params(folds=0))
    assert np.array_equal(found.held, pack.rows("val"))
    assert np.array_equal(found.found.output, found.head.predict_proba(pack.features(found.held)))


def test_with_folds_every_training_and_validation_image_is_held_out_once():
    pack = pack_of()
    held, fold_M, learned = hold_out(pack, params(folds=4))
    assert sorted(held) == sorted(pack.rows("train", "val"))
    assert set(fold_M) == {0, 1, 2, 3}
    for fold, rows in enumerate(learned):
        assert set(rows).isdisjoint(held[fold_M == fold])
        assert set(rows) | set(held[fold_M == fold]) == set(held)


def test_what_a_fold_says_of_its_images_comes_from_a_head_that_had_not_learned_them():
    pack = pack_of()
    found = choose(pack, params(folds=3))
    settings = found.found.chosen.settings
    for fold in range(3):
        inside = found.fold_M == fold
        head = train("logistic", settings, pack, np.setdiff1d(pack.rows("train", "val"), found.held[inside]), params())
        expected = head.predict_proba(pack.features(found.held[inside]))
        assert np.allclose(found.found.output[inside], expected, atol=1e-3)


def test_with_folds_the_head_kept_has_learned_training_images_only():
    pack = pack_of()
    before = choose(pack, params(folds=3))
    changed = np.array(pack.stored_ND)
    changed[pack.rows("val")] *= 0.5
    after = train(
        "logistic",
        before.found.chosen.settings,
        FeatureSet(changed, pack.views_VD, pack.index, {}),
        pack.rows("train"),
        params(),
    )
    assert np.array_equal(before.head.weight, after.weight)


@pytest.mark.parametrize(("n", "folds"), [(396, 5), (400, 0)])
def test_auto_cross_validates_where_validation_has_fewer_than_a_hundred_images(n, folds):
    found = choose(pack_of(n=n), params())
    assert found.fold_M.max() + 1 == max(folds, 1)
    assert len(found.held) == (n if folds else n / 4)


def test_views_stay_with_their_images():
    pack = pack_of(views=2)
    rows = np.concatenate([pack.rows("train")[5:9], pack.rows("val")[:3]])
    examples = examples_of(pack, rows, params())
    found = places(pack, examples.features_ND)
    assert found[:7] == [("image", row) for row in rows]
    assert found[7:] == [("view", row) for row in pack.rows("train")[5:9]] * 2
    assert np.array_equal(examples.target[7:], np.tile(pack.labels(pack.rows("train")[5:9]), 2))


def test_without_training_images_there_are_no_views():
    pack = pack_of(views=2)
    assert examples_of(pack, pack.rows("val"), params()).features_ND.shape == (30, D)


def test_an_image_with_views_counts_as_much_as_one_without():
    pack = pack_of(views=2)
    rows = pack.rows("train", "val")
    examples = examples_of(pack, rows, params())
    image_N = [row for _, row in places(pack, examples.features_ND)]
    assert np.bincount(image_N, examples.weight_N) == pytest.approx(pack.weights(rows))


def test_views_are_never_held_out():
    pack = pack_of(views=1)
    held, _, learned = hold_out(pack, params(folds=3))
    for rows in learned:
        images = {row for _, row in places(pack, examples_of(pack, rows, params()).features_ND)}
        assert images == set(rows)
    assert len(held) == 120


def test_weights_of_images_and_classes_multiply():
    pack = pack_of()
    index = pack.index.assign(weight=np.where(pack.index["label"] == "a", 3.0, 1.0))
    examples = examples_of(
        FeatureSet(pack.stored_ND, pack.views_VD, index, {}),
        pack.rows("train"),
        params(class_weight={"a": 2, "b": 1, "c": 0.5}),
    )
    assert np.array_equal(examples.weight_N, np.array([6.0, 1.0, 0.5])[examples.target])


@pytest.mark.parametrize(
    ("task", "loss"), [("classification", "log_loss"), ("multilabel", "log_loss"), ("regression", "rmse")]
)
def test_the_loss_of_the_task_decides_unless_a_metric_is_chosen(task, loss):
    assert select_of(params(select="auto"), task) == loss


@pytest.mark.parametrize(
    ("task", "select"),
    [("classification", "accuracy"), ("classification", "kappa"), ("multilabel", "auroc"), ("regression", "rmse")],
)
def test_a_chosen_metric_of_the_task_decides(task, select):
    assert select_of(params(select=select), task) == select


@pytest.mark.parametrize(
    ("task", "select"),
    [
        ("classification", "rmse"),
        ("multilabel", "rmse"),
        ("multilabel", "accuracy"),
        ("regression", "log_loss"),
        ("regression", "accuracy"),
    ],
)
def test_a_metric_of_another_task_is_refused(task, select):
    with pytest.raises(ParamsError, match=rf"`head.select`(.|\n)*{task}"):
        choose(pack_of(task), params(select=select))


def test_held_out_images_are_weighed_as_those_learned_from():
    pack = pack_of()
    class_weight = {"a": 5.0, "b": 1.0, "c": 0.2}
    choice = choose(pack, params(folds=0, class_weight=class_weight))
    target = pack.targets(choice.held)
    weight = np.array([5.0, 1.0, 0.2])[target]
    assert choice.found.chosen.score.loss == pytest.approx(loss(choice.found.output, target, pack.task, weight))
    assert choice.found.best == int(np.argmin([tried.score.loss for tried in choice.found.tried]))


def test_class_weights_are_those_of_the_images_that_the_head_learns_from():
    pack = pack_of()
    rows = pack.rows("train")
    count_K = np.bincount(pack.targets(rows))
    assert class_weights(pack, params()) is None
    assert np.allclose(class_weights(pack, params(class_weight="balanced")), len(rows) / 3 / count_K)


@pytest.mark.parametrize("folds", [0, 3])
def test_a_class_without_a_training_image_is_named_before_anything_is_trained(folds, monkeypatch):
    monkeypatch.setattr(selection, "search", lambda *_: pytest.fail("it was searched"))
    pack = pack_of()
    index = pack.index.assign(split=np.where(pack.index["label"] == "b", "val", "train"))
    with pytest.raises(DataError, match=r"a class has no image(.|\n)*got: +b"):
        choose(FeatureSet(pack.stored_ND, pack.views_VD, index, {}), params(folds=folds))


def test_features_of_validation_that_are_not_finite_are_refused():
    pack = pack_of()
    pack.stored_ND[pack.rows("val")[2], 1] = np.inf
    with pytest.raises(DataError, match=r"features of 2\.png are not finite"):
        choose(pack, params(folds=0))


def test_features_of_a_view_that_are_not_finite_are_told_by_the_image():
    pack = pack_of(views=2)
    pack.views_VD[93, 0] = np.nan  # of 90 training images, the fourth's second view
    with pytest.raises(DataError, match=r"features of 33\.png are not finite"):
        choose(pack, params(folds=3))


def test_the_features_held_out_are_read_by_slices():
    pack = pack_of(val=0.5)
    longest = 0

    class Watched(np.ndarray):
        def __getitem__(self, rows):
            nonlocal longest
            if isinstance(rows, np.ndarray):
                longest = max(longest, len(rows))
            return np.asarray(self)[rows]

    watched = FeatureSet(pack.stored_ND.view(Watched), pack.views_VD, pack.index, {})
    with pytest.MonkeyPatch.context() as patch:
        for module in (base, estimator):
            patch.setattr(module, "blocks", lambda n: blocks(n, 16))
        patch.setattr(principal_axes, "BLOCK", 16)
        choose(watched, params(folds=3))
    assert longest == 16


def test_without_folds_and_validation_images_nothing_can_be_chosen():
    with pytest.raises(ParamsError, match=r"`head.folds`(.|\n)*none(.|\n)*auto"):
        choose(pack_of(val=0), params(folds=0))


@pytest.mark.parametrize("folds", [0, 3])
def test_without_training_images_nothing_can_be_learned(folds):
    with pytest.raises(DataError, match="no image is in the split train"):
        choose(pack_of(val=1), params(folds=folds))


@pytest.mark.parametrize("folds", [0, 3])
def test_labels_that_are_all_the_same_are_refused(folds):
    pack = pack_of()
    with pytest.raises(DataError, match=r"same label(.|\n)*got: +a"):
        choose(FeatureSet(pack.stored_ND, pack.views_VD, pack.index.assign(label="a"), {}), params(folds=folds))


def test_the_same_pack_gives_the_same_bits():
    for kind in ("logistic", "knn", "ridge", "mlp"):
        one, other = (choose(pack_of(), params(kind=kind, folds=3)) for _ in range(2))
        assert one.found.output.tobytes() == other.found.output.tobytes()
        assert repr(one.found.tried) == repr(other.found.tried)


def test_images_that_always_train_are_not_held_out():
    pack = pack_of()
    label = pack.index["label"].to_numpy().copy()
    label[-1] = "rare"
    alone = FeatureSet(pack.stored_ND, pack.views_VD, pack.index.assign(label=label), {})
    held, fold_M, learned = hold_out(alone, params(folds=3))
    assert 119 not in held
    assert len(held) == len(fold_M) == 119
    assert all(119 in rows for rows in learned)


def test_the_path_of_logistic_regression_ends_where_it_has_turned_and_that_of_ridge_regression_does_not():
    whole = {"strengths": 20, "l2_max": 10, "l2_min": 1e-9, "folds": 0}
    tried = {kind: len(choose(pack_of(), params(kind=kind, **whole)).found.tried) for kind in ("logistic", "ridge")}
    assert tried["logistic"] < tried["ridge"] == 20


def test_few_is_what_the_parameter_says():
    described = HeadParams.model_fields["folds"].description
    assert f"fewer than {selection.FEW} images" in described
    assert f"takes {selection.FOLDS} where" in described


def test_too_few_groups_for_two_folds_are_refused_and_auto_goes_by_validation_then():
    pack = pack_of(n=40)
    pack.index["group"] = pack.index["label"]
    with pytest.raises(ParamsError, match=r"`head.folds`(.|\n)*groups"):
        hold_out(pack, params(folds=4))
    assert np.array_equal(hold_out(pack, params(folds="auto"))[0], pack.rows("val"))
