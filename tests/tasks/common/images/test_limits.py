import subprocess
import sys
import threading

import pytest

from graft.tasks.common.images.limits import Budget, Limits, give_back


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


HOARD = """
import psutil
from graft.tasks.common.images.limits import give_back
kept = [bytearray(8 << 20), [bytearray(60_000) for _ in range(3_000)], bytearray(60_000)]
full = psutil.Process().memory_info().rss
kept[1].clear()
give_back()
print(full - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives memory back when asked")
def test_freed_memory_is_given_back_to_the_system():
    freed = subprocess.run([sys.executable, "-c", HOARD], capture_output=True, text=True, check=True).stdout
    assert int(freed) > 100_000_000


def test_where_the_system_cannot_be_asked_nothing_happens(monkeypatch):
    monkeypatch.setattr("graft.tasks.common.images.limits._trim", lambda: None)
    give_back()
