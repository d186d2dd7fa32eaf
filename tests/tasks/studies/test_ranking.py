import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from tasks.studies.ranking import Probed, fastest_as_good, front, mcnemar, rank
from tasks.studies.ranking_picture import ranking_picture


def right(*places, count=20):
    correct_N = np.zeros(count, bool)
    correct_N[list(places)] = True
    return correct_N


def probed(name, correct_N, speed=10.0, log_loss=0.5):
    share = float(correct_N.mean())
    return Probed(name, correct_N, share, share - 0.1, share + 0.1, log_loss, {"l2": 0.1}, speed, "", 1.0, 4)


@pytest.mark.parametrize(("a_alone", "b_alone"), [(1, 0), (0, 7), (5, 5), (3, 12), (40, 61), (900, 1000)])
def test_the_paired_test_is_the_exact_binomial_test_of_those_that_only_one_gets_right(a_alone, b_alone):
    both = np.ones(50, bool)
    a_N = np.concatenate([both, np.ones(a_alone, bool), np.zeros(b_alone, bool), ~both])
    b_N = np.concatenate([both, np.zeros(a_alone, bool), np.ones(b_alone, bool), ~both])
    assert mcnemar(a_N, b_N) == pytest.approx(binomtest(a_alone, a_alone + b_alone, 0.5).pvalue, rel=1e-12)


def test_two_that_are_right_on_the_same_images_do_not_differ():
    assert mcnemar(right(1, 2), right(1, 2)) == 1.0


def test_the_order_of_the_two_does_not_matter():
    assert mcnemar(right(1, 2, 3, 4), right(5)) == mcnemar(right(5), right(1, 2, 3, 4))


def test_the_front_is_what_nothing_beats_in_both():
    points = [(0.9, 10.0), (0.8, 20.0), (0.8, 15.0), (0.7, 30.0), (0.6, 5.0)]
    assert front(points) == [True, True, False, True, False]


def test_of_equal_accuracy_only_the_fastest_is_on_the_front():
    assert front([(0.9, 10.0), (0.9, 11.0)]) == [False, True]


def test_two_that_are_alike_in_both_are_on_the_front_together():
    assert front([(0.9, 10.0), (0.9, 10.0), (0.8, 10.0)]) == [True, True, False]


def test_the_most_accurate_stands_first_and_of_equals_that_of_the_lower_log_loss():
    standings = rank(
        [probed("c", right(1)), probed("b", right(1, 2), log_loss=0.4), probed("a", right(3, 4), log_loss=0.3)]
    )
    assert [one.probed.name for one in standings] == ["a", "b", "c"]
    assert standings[0].p == 1.0


def test_the_fastest_that_is_not_significantly_worse_is_found():
    everything = np.ones(20, bool)
    best, near = probed("best", everything, 10), probed("near", right(*range(18)), 20)
    far, slow = probed("far", right(*range(10)), 40), probed("slow", right(*range(19)), 5)
    standings = rank([far, slow, near, best])
    assert fastest_as_good(standings, 0.05).probed.name == "near"
    assert fastest_as_good(standings, 0.0005).probed.name == "far"


@pytest.mark.parametrize("count", [1, 3, 18])
def test_the_picture_is_drawn_whatever_the_number_of_candidates_and_has_the_same_bytes_again(tmp_path, count):
    standings = rank([probed(f"network_{n}", right(*range(n % 7 + 3)), 2.0**n) for n in range(count)])
    for name in ("a.png", "b.png"):
        ranking_picture(standings, 0.95, 20, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
