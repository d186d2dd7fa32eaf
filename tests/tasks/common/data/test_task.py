from typing import get_args

import pytest

from graft.tasks.common.data.task import LOSS, MAIN, Task


def test_every_task_has_a_main_metric_and_a_loss():
    assert set(MAIN) == set(LOSS) == set(get_args(Task))


@pytest.mark.parametrize(
    ("task", "text"), [("classification", "98.8%"), ("multilabel", "98.8%"), ("regression", "0.988")]
)
def test_a_share_is_shown_in_per_cent(task, text):
    assert MAIN[task].text(0.98765) == text


def test_a_metrics_keys_are_its_value_and_the_ends_of_its_interval():
    assert MAIN["regression"].keys == ("r2", "r2_low", "r2_high")
