import threading

import pytest

from graft.tasks.common.images.limits import Budget, Limits


@pytest.mark.parametrize(("size", "key"), [((20_000, 20_000), "max_pixels"), ((16, 2_000), "max_aspect_ratio")])
def test_a_refusal_names_the_parameter(size, key):
    assert f"`preprocess.{key}`" in Limits().refusal(*size)
    assert f"`preprocess.{key}`" in Limits().refusal(*reversed(size))


@pytest.mark.parametrize("size", [(10_000, 10_000), (100, 10_000), (1, 1)])
def test_what_the_limits_allow_is_not_refused(size):
    assert Limits().refusal(*size) == ""


def test_two_large_images_do_not_fit_into_the_budget_at_once():
    budget, second_holds = Budget(100), threading.Event()

    def second():
        with budget.claim(60):
            second_holds.set()

    with budget.claim(60):
        thread = threading.Thread(target=second)
        thread.start()
        assert not second_holds.wait(0.05)
    assert second_holds.wait(10)
    thread.join()


def test_small_images_share_the_budget():
    budget = Budget(100)
    with budget.claim(40), budget.claim(60):
        pass


def test_an_image_larger_than_the_budget_is_decoded_alone():
    with Budget(100).claim(1_000):
        pass
