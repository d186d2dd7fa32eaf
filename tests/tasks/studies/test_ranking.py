import numpy as np
import pytest
from PIL import Image

from graft.tasks.studies.held import Held
from graft.tasks.studies.ranking import Probed, fastest_as_good, front, rank
from graft.tasks.studies.ranking_picture import ranking_picture


def held(count=400, margin=0.02, unit_M=None, **more):
    units = np.arange(count) if unit_M is None else unit_M
    values = {"task": "classification", "metric": "accuracy", "confidence": 0.95, "margin": margin, **more}
    return Held(np.zeros(count, int), units, **values)


def outputs(wrong, count=400):
    """Two classes; the first `wrong` images are wrong."""
    p_MK = np.tile([0.9, 0.1], (count, 1))
    p_MK[:wrong] = [0.1, 0.9]
    return p_MK


def probed(name, output_MK, speed=10.0, loss=0.5):
    share = float((output_MK.argmax(axis=1) == 0).mean())
    return Probed(name, output_MK, share, share - 0.1, share + 0.1, loss, {"l2": 0.1}, speed, "", 1.0, 4)


def said(standings):
    return {one.probed.name: one.as_good for one in standings}


def test_the_front_is_what_nothing_beats_in_both():
    points = [(0.9, 10.0), (0.8, 20.0), (0.8, 15.0), (0.7, 30.0), (0.6, 5.0)]
    assert front(points) == [True, True, False, True, False]


def test_of_equal_accuracy_only_the_fastest_is_on_the_front():
    assert front([(0.9, 10.0), (0.9, 11.0)]) == [False, True]


def test_two_that_are_alike_in_both_are_on_the_front_together():
    assert front([(0.9, 10.0), (0.9, 10.0), (0.8, 10.0)]) == [True, True, False]


def test_the_best_stands_first_and_of_equals_that_of_the_lower_loss():
    standings = rank(
        [probed("c", outputs(9)), probed("b", outputs(4), loss=0.4), probed("a", outputs(4), loss=0.3)], held()
    )
    assert [one.probed.name for one in standings] == ["a", "b", "c"]
    assert standings[0].as_good == "best"
    assert standings[0].behind == (0.0, 0.0)


def test_a_candidate_is_as_good_if_it_is_at_most_the_margin_behind():
    near, far = probed("near", outputs(2), 20), probed("far", outputs(80), 40)
    standings = rank([far, near, probed("best", outputs(0))], held(margin=0.03))
    assert said(standings) == {"best": "best", "near": "yes", "far": "no"}
    assert fastest_as_good(standings).probed.name == "near"
    behind, most = standings[1].behind
    assert behind == pytest.approx(0.005)
    assert behind < most < 0.03


def test_too_few_images_to_tell_are_neither_and_the_number_is_told():
    standings = rank([probed("best", outputs(0, 30)), probed("other", outputs(0, 30), 20, loss=0.6)], held(30))
    assert said(standings)["other"] == "too few"
    assert standings[1].more > 50
    assert fastest_as_good(standings).probed.name == "best"


def test_many_candidates_need_more_images_than_one():
    best, other = probed("best", outputs(0, 140)), probed("other", outputs(0, 140), 20, loss=0.6)
    assert said(rank([best, other], held(140)))["other"] == "yes"
    others = [probed(f"far{n}", outputs(100, 140)) for n in range(9)]
    assert said(rank([best, other, *others], held(140)))["other"] == "too few"


def test_what_is_shown_to_be_as_good_makes_the_test_of_the_next_less_strict():
    """Holm: with 190 images and three others, one that equals the best passes; alone at a third it would not."""
    found = rank(
        [probed("best", outputs(0, 300)), probed("same", outputs(0, 300), loss=0.6), probed("near", outputs(1, 300))],
        held(300, margin=0.0135),
    )
    assert said(found) == {"best": "best", "same": "yes", "near": "too few"}
    wider = rank([one.probed for one in found], held(300, margin=0.0158))
    assert said(wider)["near"] == "yes"


def test_images_of_one_group_count_as_one():
    """Four wrong of 400: of four patients, it is close to the margin; of one, nothing is known."""
    best, other = probed("best", outputs(0)), probed("other", outputs(80), 20)
    alone = rank([best, other], held())
    grouped = rank([best, other], held(unit_M=np.repeat(np.arange(5), 80)))
    assert said(alone)["other"] == "no"
    assert said(grouped)["other"] == "too few"


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_candidates_for_other_tasks_are_ranked_by_their_own_metric(task):
    rng = np.random.default_rng(0)
    target = (rng.random((200, 2)) < 0.4).astype(float) if task == "multilabel" else rng.normal(size=200)
    true = target.reshape(200, -1)
    metric = {"multilabel": "mean_average_precision", "regression": "r2"}[task]
    where = Held(target, np.arange(200), task, metric, 0.95, 0.02)
    fine, rough = (np.clip(true + rng.normal(0, spread, true.shape), -3, 3) for spread in (0.4, 1.5))
    names = {name: Probed(name, out, *where.score(out), 0.1, {}, 1.0, "", 1.0, 4)
             for name, out in (("fine", fine), ("rough", rough))}  # fmt: skip
    standings = rank(list(names.values()), where)
    assert said(standings) == {"fine": "best", "rough": "no"}
    assert standings[0].probed.low <= standings[0].probed.value <= standings[0].probed.high


@pytest.mark.parametrize("count", [1, 3, 18])
def test_the_picture_is_drawn_whatever_the_number_of_candidates_and_has_the_same_bytes_again(tmp_path, count):
    standings = rank([probed(f"network_{n}", outputs(n % 7 + 3, 20), 2.0**n) for n in range(count)], held(20))
    for name in ("a.png", "b.png"):
        ranking_picture(standings, held(20), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
