from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.scoring.classification import accuracy
from graft.tasks.common.scoring.paired import Outcome
from graft.tasks.studies.comparing import Cell, advice, as_good_as_the_best, crossings, points
from graft.tasks.studies.comparing_picture import comparing_picture
from graft.tasks.studies.held import Held

V = 400
Y_V = np.arange(V) % 2
ALONE_V = np.arange(V)
SHARES = {0.1: 50, 0.5: 250, 1.0: 500}
HEAD = (0.8, 0.85, 0.9)


def output(right):
    """Of a model that has this share of the images right; which ones is as good as random, and the same for all."""
    order = np.random.default_rng(0).permutation(V)
    said = np.where(np.isin(ALONE_V, order[: round(right * V)]), Y_V, 1 - Y_V)
    return np.eye(2)[said]


def cells(seeds=2, seconds=None, **methods):
    """A method's share of images that are right at each size."""
    seconds = seconds or {"head": 1.0, "last_stage": 60.0, "all": 600.0, "scratch": 1800.0}
    return [
        Cell(method, share, seed, SHARES[share], 0 if method == "head" else 1000, 4, seconds[method], output(right))
        for method, line in methods.items()
        for share, right in zip(SHARES, line, strict=True)
        for seed in range(seeds)
    ]


JUDGED = Held(Y_V, ALONE_V, "classification", "accuracy", 0.95, 0.02)
FEW = Held(Y_V[:40], ALONE_V[:40], "classification", "accuracy", 0.95, 0.02)


def judge(found):
    return points(found, JUDGED)


def told(found):
    return crossings(judge(found), JUDGED.named)


def advised(found, judged=JUDGED):
    return advice(points(found, judged), judged.named, as_good_as_the_best(found, judged))


def test_a_point_is_the_mean_of_its_seeds_with_an_interval_around_it():
    found = [Cell("head", 1.0, seed, 500, 0, 0, 1.0 + seed, output(right)) for seed, right in enumerate((0.8, 0.9))]
    (point,) = judge(found)
    assert point.value == pytest.approx(np.mean([accuracy(cell.output, Y_V) for cell in found]))
    assert point.low < point.value < point.high
    assert (point.images, point.seeds, point.seconds) == (500, 2, 1.5)


def test_more_judged_images_give_a_narrower_interval():
    few = points([Cell("head", 1.0, 0, 9, 0, 0, 1.0, output(0.8)[:40])], FEW)
    many = points([Cell("head", 1.0, 0, 9, 0, 0, 1.0, output(0.8))], JUDGED)
    assert many[0].high - many[0].low < few[0].high - few[0].low


def test_images_of_one_group_count_as_one():
    alone = judge(cells(1, head=HEAD))[0]
    grouped = points(cells(1, head=HEAD), replace(JUDGED, unit_M=ALONE_V // 20))[0]
    assert grouped.high - grouped.low > 0.5 * (alone.high - alone.low)
    assert grouped.value == alone.value


def test_what_two_methods_have_in_common_does_not_widen_what_is_between_them():
    found = judge(cells(head=HEAD, all=(0.83, 0.88, 0.93)))
    gain, low, high = found[-1].gain
    assert gain == pytest.approx(0.03)
    assert 0 < low < gain < high
    assert high - low < found[-1].high - found[-1].low


def test_methods_and_sizes_come_in_their_order():
    found = judge(cells(1, scratch=HEAD, all=HEAD, head=HEAD)[::-1])
    assert [point.method for point in found[::3]] == ["head", "all", "scratch"]
    assert [point.images for point in found[:3]] == [50, 250, 500]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((0.9, 0.95, 0.99), "is better than the frozen head from 50 images on (99.0% against 90.0% at 500 images)"),
        ((0.3, 0.5, 0.7), "stays below the frozen head up to 500 images (70.0% against 90.0% at 500 images)"),
        ((0.8, 0.85, 0.9), "cannot be told from the frozen head at 500 images"),
        ((0.9, 0.85, 0.8), "is below the frozen head at 500 images"),
        ((0.6, 0.8, 0.99), "crosses the frozen head at about"),
        ((0.8025, 0.95, 0.99), "is better than the frozen head from 250 images on, not significantly before"),
    ],
)
def test_where_a_method_stands_beside_the_frozen_head_is_a_sentence(line, words):
    (sentence,) = told(cells(head=HEAD, scratch=line))
    assert sentence.startswith("From scratch ")
    assert words in sentence


def test_the_crossing_is_where_the_lines_meet_on_the_logarithmic_axis():
    (sentence,) = told(cells(head=(0.8, 0.8, 0.8), all=(0.5, 0.7, 0.9)))
    meet = int(sentence.split("about ")[1].split(" ")[0])
    assert meet == round(np.sqrt(250 * 500))


def test_without_a_frozen_head_there_is_nothing_to_cross():
    assert told(cells(all=HEAD)) == []


def test_the_cheapest_that_is_as_good_is_advised():
    found = cells(head=HEAD, last_stage=(0.9, 0.95, 0.99), all=(0.9, 0.95, 0.9925), scratch=(0.2, 0.3, 0.4))
    assert advised(found) == (
        "Use `last_stage` (last stage trained): 99.0% at 500 images, for 60 seconds; it is as good as `all` (99.2%, "
        "10.0 minutes), within the margin."
    )


def test_what_is_better_is_worth_its_price():
    found = cells(head=HEAD, all=(0.9, 0.95, 0.99))
    assert advised(found) == (
        "Use `all` (all layers trained): 99.0% at 500 images, for 10.0 minutes; nothing cheaper is as good."
    )


def test_the_frozen_head_is_advised_where_nothing_is_better():
    assert advised(cells(head=HEAD, all=(0.8, 0.85, 0.9))).startswith("Use `head`")
    assert advised(cells(head=(0.8, 0.85, 0.95), all=HEAD)).endswith("for 1 seconds; no other method is better.")


def test_too_few_images_to_tell_is_in_the_advice_with_how_many_more_would():
    right, wrong = (np.eye(2)[said_V] for said_V in (Y_V[:40], np.r_[1 - Y_V[:1], Y_V[1:40]]))
    found = [replace(cell, output=wrong if cell.method == "head" else right) for cell in cells(head=HEAD, all=HEAD)]
    text = advised(found, FEW)
    assert text.startswith("Use `all`")
    assert "too few validation images to tell whether `head` (" in text
    assert "more would." in text


def test_methods_that_are_right_on_the_same_few_images_are_not_shown_to_be_as_good():
    """Resamples of what never differs do not vary."""
    same = [replace(cell, output=cell.output[:40]) for cell in cells(head=HEAD, all=HEAD)]
    (only,) = as_good_as_the_best(same, FEW).values()
    assert only.says == "too few"
    assert as_good_as_the_best(cells(head=HEAD, all=HEAD), JUDGED) == {"all": Outcome("not worse")}


def test_numbers_can_be_compared_too():
    target = np.linspace(0, 1, V)
    found = [
        Cell(method, 1.0, 0, 500, 0, 0, 1.0, (target + np.random.default_rng(1).normal(0, spread, V))[:, None])
        for method, spread in (("head", 0.2), ("all", 0.05))
    ]
    judged = Held(target, ALONE_V, "regression", "r2", 0.95, 0.02)
    (sentence,) = crossings(points(found, judged), judged.named)
    assert "is better than the frozen head" in sentence


def test_the_picture_is_always_the_same(tmp_path):
    found = judge(cells(head=HEAD, all=(0.9, 0.95, 0.99)))
    for name in ("a.png", "b.png"):
        comparing_picture(found, JUDGED, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").width > 500
