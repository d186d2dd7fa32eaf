import numpy as np
import pytest

from graft.tasks.audit import curve as module
from graft.tasks.audit.curve import SHARES
from graft.tasks.common.data.units import units_of


def learning_curve(pack, predict, seeds, seed):
    return module.learning_curve(pack, predict, units_of(pack, np.arange(len(pack.index)))[0], seeds, seed)


def pack_with_validation(pack_of, n=200, m=100, labels="ab", group=None, task="classification"):
    names = np.resize(np.array(list(labels)), n + m)
    values = np.arange(n + m) % 17 if task == "regression" else names
    split = ["train"] * n + ["val"] * m
    return pack_of(np.zeros((n + m, 2)), values, split=split, group=group, task=task)


def right_so_often(pack, error):
    """A way to predict that is wrong in a share `error(images)` of all answers, always on the same images first."""

    def predict(learned, asked, factor):
        y_N = pack.labels(asked)
        order = np.random.default_rng(0).permutation(len(asked))
        wrong = order < round(error(len(learned)) * len(asked))
        return np.eye(len(pack.classes))[np.where(wrong, (y_N + 1) % len(pack.classes), y_N)]

    return predict


def test_the_metric_at_each_size_is_that_of_the_models(pack_of):
    pack = pack_with_validation(pack_of, n=1000)
    curve = learning_curve(pack, right_so_often(pack, lambda n: 0.5 - n / 2500), 1, 0)
    assert list(curve.sizes["images"]) == [10, 20, 50, 100, 200, 500, 1000]
    assert list(curve.sizes["value"]) == pytest.approx([0.5, 0.51, 0.52, 0.54, 0.58, 0.7, 0.9])
    assert (curve.sizes["low"] <= curve.sizes["value"]).all()
    assert (curve.sizes["value"] <= curve.sizes["high"]).all()


def test_each_seed_draws_parts_of_its_own_and_the_whole_is_asked_once(pack_of):
    pack = pack_with_validation(pack_of, n=1000)
    asked = []

    def predict(learned, rows, factor):
        asked.append((len(learned), tuple(learned), factor))
        return np.eye(2)[pack.labels(rows)]

    curve = learning_curve(pack, predict, 3, 0)
    assert [count for count, *_ in asked] == [10] * 3 + [20] * 3 + [50] * 3 + [100] * 3 + [200] * 3 + [500] * 3 + [1000]
    assert len({part for _, part, _ in asked}) == 19
    assert list(curve.table["seed"]) == [0, 1, 2] * 6 + [0]


def test_the_penalty_on_the_summed_loss_is_the_same_at_all_sizes(pack_of):
    pack = pack_with_validation(pack_of, n=1000)
    factors = {}

    def predict(learned, rows, factor):
        factors[len(learned)] = factor
        return np.eye(2)[pack.labels(rows)]

    learning_curve(pack, predict, 1, 0)
    assert {n: factor * n for n, factor in factors.items()} == {n: pytest.approx(1000) for n in factors}


def test_the_gain_of_twice_the_images_is_that_of_the_law(pack_of):
    pack = pack_with_validation(pack_of, n=2000, m=4000)
    curve = learning_curve(pack, right_so_often(pack, lambda n: 0.05 + 1.5 * n**-0.5), 1, 0)
    expected = 1.5 * (2000**-0.5 - 4000**-0.5)
    assert curve.doubling["gain"] == pytest.approx(expected, rel=0.15)
    assert curve.doubling["low"] < expected < curve.doubling["high"]
    assert curve.doubling["reason"] == ""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda n: 0.3, "the error does not clearly fall with more images"),
        (lambda n: 0.0 if n > 100 else 0.2, "no error is left on validation"),
    ],
)
def test_where_no_law_can_be_fitted_it_is_said_why(pack_of, error, reason):
    pack = pack_with_validation(pack_of, n=1000)
    curve = learning_curve(pack, right_so_often(pack, error), 2, 0)
    assert curve.doubling == {"reason": reason}
    assert curve.fitted == {}


def test_of_few_images_there_are_too_few_sizes_for_a_law(pack_of):
    pack = pack_with_validation(pack_of, n=8)
    curve = learning_curve(pack, right_so_often(pack, lambda n: 1 / n), 1, 0)
    assert list(curve.sizes["images"]) == [2, 4, 8]
    assert list(curve.sizes["share"]) == [0.25, 0.5, 1]
    assert set(curve.skipped) == {0.01, 0.02, 0.05, 0.1}
    assert curve.skipped[0.1] == "no fewer images than at the next share (2)"
    assert curve.doubling["reason"] == "there are only 3 sizes, and a law needs 4"


def test_groups_are_never_torn(pack_of):
    rng = np.random.default_rng(0)
    group = [f"g{number}" for number in rng.integers(0, 25, 300)]
    pack = pack_with_validation(pack_of, group=group)
    of_row = np.array(group)

    def predict(learned, rows, factor):
        others = np.setdiff1d(pack.rows("train"), learned)
        assert not set(of_row[learned]) & set(of_row[others])
        return np.eye(2)[pack.labels(rows)]

    learning_curve(pack, predict, 2, 0)


def test_a_part_that_lacks_a_class_for_want_of_groups_is_left_out(pack_of):
    """The only group with images of c holds more of a's: where it is not drawn, there is no c."""
    labels = ["a", "a", "c"] * 4 + ["a"] * 108 + ["b"] * 80 + ["a", "b", "c"] * 30
    group = [f"{label}{i // 12}" for i, label in enumerate(["a"] * 120 + ["b"] * 80)] + [f"v{i}" for i in range(90)]
    pack = pack_of(np.zeros((290, 2)), labels, split=["train"] * 200 + ["val"] * 90, group=group)
    curves = [learning_curve(pack, right_so_often(pack, lambda n: 1 / n), 1, seed) for seed in range(3)]
    assert curves[0].skipped[0.01] == "too few groups for an image of every class"
    for curve in curves:
        assert len(curve.sizes) == len(set(SHARES) - set(curve.skipped))


def test_numbers_are_judged_by_the_variance_that_is_explained(pack_of):
    pack = pack_with_validation(pack_of, n=1000, m=200, task="regression")

    def predict(learned, asked, factor):
        noise = np.random.default_rng(0).normal(size=len(asked)) * np.sqrt(20 / len(learned))
        return (pack.targets(asked) + noise)[:, None]

    curve = learning_curve(pack, predict, 1, 0)
    y_N = pack.targets(pack.rows("val"))
    last = predict(np.arange(1000), pack.rows("val"), 1.0)[:, 0]
    assert curve.sizes["value"].iloc[-1] == pytest.approx(1 - ((last - y_N) ** 2).mean() / y_N.var())
    assert curve.fitted["c"] == pytest.approx(1.0, abs=0.05)


def test_the_same_pack_and_seed_give_the_same_curve(pack_of):
    pack = pack_with_validation(pack_of, n=500)

    def predict(learned, asked, factor):
        rng = np.random.default_rng(learned)
        return rng.dirichlet([1, 1], len(asked))

    one, again, other = (learning_curve(pack, predict, 2, seed) for seed in (0, 0, 1))
    assert one.sizes.equals(again.sizes)
    assert one.doubling == again.doubling
    assert not one.sizes.equals(other.sizes)


def test_the_shares_go_up_to_all():
    assert list(SHARES) == sorted(SHARES)
    assert SHARES[-1] == 1


def test_the_share_and_the_penalty_of_a_part_are_those_of_what_it_holds(pack_of):
    """Of 50 classes of four images, a hundredth holds one image each: a quarter."""
    names = [f"c{k:02}" for k in range(50)] * 5
    pack = pack_of(np.zeros((250, 2)), names, split=["train"] * 200 + ["val"] * 50)
    factors = {}

    def predict(learned, rows, factor):
        factors[len(learned)] = factor
        return np.eye(50)[pack.labels(rows)]

    curve = learning_curve(pack, predict, 1, 0)
    assert list(curve.sizes["share"]) == list(curve.table["share"]) == [0.25, 0.5, 1]
    assert factors == {50: 4, 100: 2, 200: 1}


def test_all_images_have_their_point_even_where_a_smaller_share_holds_all(pack_of):
    pack = pack_of(np.zeros((22, 2)), list("ab") * 11, split=["train"] * 2 + ["val"] * 20)
    curve = learning_curve(pack, right_so_often(pack, lambda n: 0.1), 2, 0)
    assert list(curve.sizes["share"]) == [1]
    assert set(curve.skipped) == set(SHARES) - {1}


@pytest.mark.parametrize("m", [0, 1, 9])
def test_without_enough_validation_images_there_is_no_curve_and_it_is_said_why(pack_of, m):
    curve = learning_curve(pack_with_validation(pack_of, m=m), None, 1, 0)
    assert curve.sizes.empty
    assert curve.table.empty
    assert curve.doubling == {"reason": f"there are only {m} validation images, and a curve needs 10"}


def test_validation_images_of_one_group_give_no_curve(pack_of):
    group = [None] * 200 + ["v"] * 100
    curve = learning_curve(pack_with_validation(pack_of, group=group), None, 1, 0)
    assert curve.doubling == {"reason": "all validation images are of one group, or copies of each other"}


def test_resamples_of_one_number_only_have_no_part_in_the_interval(pack_of):
    """Eleven of twelve validation images have the same number: in every third resample all have."""
    y_N = np.concatenate([np.arange(100) % 17, [5.0] * 11, [9.0]])
    pack = pack_of(np.zeros((112, 2)), y_N, split=["train"] * 100 + ["val"] * 12, task="regression")
    curve = learning_curve(pack, lambda learned, rows, factor: pack.targets(rows)[:, None] + 0.5, 1, 0)
    assert np.isfinite(curve.sizes[["value", "low", "high"]]).all(axis=None)
    assert curve.sizes["low"].min() > -10


def test_numbers_that_are_all_the_same_give_no_curve(pack_of):
    y_N = np.concatenate([np.arange(100) % 17, [5.0] * 20])
    pack = pack_of(np.zeros((120, 2)), y_N, split=["train"] * 100 + ["val"] * 20, task="regression")
    assert learning_curve(pack, None, 1, 0).doubling == {"reason": "all validation images have the same number"}


def test_images_of_a_group_are_drawn_together_so_that_the_interval_is_as_wide_as_groups_make_it(pack_of):
    """Five groups of twenty, of which one is all wrong: five chances, and not a hundred."""
    group = [None] * 200 + [f"v{i // 20}" for i in range(100)]

    def interval(group):
        pack = pack_with_validation(pack_of, group=group)

        def predict(learned, rows, factor):
            y_N = pack.labels(rows)
            return np.eye(2)[np.where(np.arange(100) < 20, 1 - y_N, y_N)]

        last = learning_curve(pack, predict, 1, 0).sizes.iloc[-1]
        return last["high"] - last["low"]

    assert interval(group) > 3 * interval(None)
