import pytest

from graft.tasks.finetune.schedule import Schedule


def test_without_a_change_the_schedule_is_a_share_of_all_epochs():
    assert [Schedule(4).at(done) for done in (0, 1, 2.5, 4)] == [0, 0.25, 0.625, 1]


def test_fewer_epochs_go_on_from_where_the_schedule_is_and_end_at_its_end():
    shorter = Schedule(10).replanned(2, 10, seconds_left=3.5, seconds_an_epoch=1.0)
    assert shorter.epochs == 5
    assert shorter.at(2) == pytest.approx(Schedule(10).at(2))
    assert shorter.at(5) == pytest.approx(1)


def test_epochs_that_turn_out_faster_are_more_again_but_never_more_than_planned():
    slow = Schedule(10).replanned(1, 10, seconds_left=4, seconds_an_epoch=2.0)
    assert slow.epochs == 3
    assert slow.replanned(2, 10, seconds_left=20, seconds_an_epoch=1.0).epochs == 10


def test_without_time_for_another_epoch_the_last_was_the_last():
    assert Schedule(10).replanned(1, 10, seconds_left=-1, seconds_an_epoch=1.0).epochs == 1


def test_a_schedule_that_is_done_stays_done():
    assert Schedule(3, 1, 0.5).replanned(3, 10, seconds_left=100, seconds_an_epoch=1.0) == Schedule(3, 1, 0.5)
