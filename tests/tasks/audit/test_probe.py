import numpy as np
import pytest


def halves(pack):
    return np.arange(len(pack.index))[::2], np.arange(len(pack.index))[1::2]


def test_classes_that_are_apart_are_told_apart(pack_of, clouds, probe_of):
    pack = pack_of(*clouds(20))
    learned, asked = halves(pack)
    p_NK = probe_of(pack)(learned, asked)
    assert p_NK.shape == (30, 3)
    assert np.allclose(p_NK.sum(axis=1), 1)
    assert (p_NK.argmax(axis=1) == pack.labels(asked)).all()


def test_a_class_that_was_not_learned_is_never_said(pack_of, clouds, probe_of):
    pack = pack_of(*clouds(20))
    p_NK = probe_of(pack)(np.arange(40), np.arange(60))
    assert (p_NK[:, 2] == 0).all()
    assert np.allclose(p_NK.sum(axis=1), 1)


def test_of_a_single_class_everything_is_that_class(pack_of, clouds, probe_of):
    pack = pack_of(*clouds(20))
    assert (probe_of(pack)(np.arange(20), np.arange(60)) == [1, 0, 0]).all()


def test_several_classes_are_told_each_by_itself(pack_of, probe_of):
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(200, 8))
    labels = ["|".join(name for name, x in zip("abc", row, strict=False) if x > 0) for row in x_ND]
    pack = pack_of(x_ND, labels, task="multilabel")
    learned, asked = halves(pack)
    p_NK = probe_of(pack, 1e-3)(learned, asked)
    assert ((p_NK > 0.5) == pack.targets(asked)).mean() > 0.9


def test_a_class_that_no_learned_image_has_gets_nothing_and_one_that_all_have_everything(pack_of, probe_of):
    x_ND = np.random.default_rng(0).normal(size=(40, 4))
    labels = ["a|b" if row[0] > 0 else "a" for row in x_ND[:39]] + ["a|c"]
    pack = pack_of(x_ND, labels, task="multilabel")
    p_NK = probe_of(pack)(np.arange(39), np.arange(40))
    assert (p_NK[:, 0] == 1).all()
    assert (p_NK[:, 2] == 0).all()


def test_numbers_are_predicted_by_the_ridge_regression_of_the_stated_loss(pack_of, probe_of):
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(60, 5)) * [1, 2, 3, 1, 1]
    y_N = x_ND @ [1, -2, 0.5, 0, 0] + 7 + 0.1 * rng.normal(size=60)
    pack = pack_of(x_ND, y_N, task="regression")
    learned, asked = halves(pack)
    x, y = x_ND[learned], y_N[learned]
    scale = np.sqrt(x_ND.var(axis=0) + x_ND.var(axis=0).mean())  # of all that may be learned from
    z = (x - x.mean(axis=0)) / scale
    w = np.linalg.solve(z.T @ z / len(y) + 0.05 * np.eye(5), z.T @ (y - y.mean()) / len(y))
    expected = (x_ND[asked] - x.mean(axis=0)) / scale @ w + y.mean()
    assert np.allclose(probe_of(pack, 0.05)(learned, asked)[:, 0], expected, atol=1e-4)


def test_a_factor_scales_the_penalty(pack_of, clouds, probe_of):
    pack = pack_of(*clouds(20, spread=4.0))
    learned, asked = halves(pack)
    assert np.allclose(probe_of(pack, 0.1)(learned, asked, 10.0), probe_of(pack, 1.0)(learned, asked), atol=1e-3)
    assert not np.allclose(probe_of(pack, 0.1)(learned, asked), probe_of(pack, 1.0)(learned, asked), atol=1e-2)


@pytest.mark.parametrize("learned", [[0, 1, 2, 3], [0, 3]])
def test_of_the_views_only_those_of_learned_images_are_learned(pack_of, probe_of, learned):
    """Each image has two views; those of others say the opposite."""
    x_ND = np.array([[1.0, 0], [1.2, 0], [-1.2, 0], [-1.0, 0]])
    views = np.where(np.isin(np.arange(4), learned)[:, None], x_ND, -9 * x_ND)
    pack = pack_of(x_ND, list("aabb"), views=np.vstack([views, views]))
    features, rows = pack.with_views(np.array(learned))
    assert list(rows) == [*learned] * 3
    assert np.array_equal(np.asarray(features), np.vstack([x_ND[learned]] * 3).astype(np.float32))
    assert list(probe_of(pack)(np.array(learned), np.arange(4)).argmax(axis=1)) == [0, 0, 1, 1]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_an_image_with_views_counts_as_much_as_one_without(pack_of, clouds, probe_of, task):
    x_ND, labels = clouds(20, spread=6.0)
    labels = labels if task == "classification" else np.arange(60.0)
    split = np.where(np.arange(60) % 3 == 0, "val", "train")
    bare = pack_of(x_ND, labels, split=split, task=task)
    views = pack_of(x_ND, labels, split=split, task=task, views=np.tile(x_ND[split == "train"], (3, 1)))
    learned, asked = halves(bare)
    assert np.allclose(probe_of(views)(learned, asked), probe_of(bare)(learned, asked), atol=1e-3)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_weight_of_two_is_a_lossless_copy(pack_of, clouds, probe_of, task):
    x_ND, labels = clouds(20, spread=6.0)
    labels = labels if task == "classification" else np.arange(60.0)
    weighty = pack_of(x_ND, labels, task=task)
    weighty.index["weight"] = np.where(np.arange(60) < 20, 2.0, 1.0)
    copied = pack_of(np.vstack([x_ND, x_ND[:20]]), [*labels, *labels[:20]], task=task)
    assert np.allclose(
        probe_of(weighty)(np.arange(60), np.arange(60)), probe_of(copied)(np.arange(80), np.arange(60)), atol=1e-3
    )
