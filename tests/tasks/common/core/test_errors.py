import errno

import pytest

from graft.tasks.common.core.errors import (
    DataError,
    GraftError,
    ParamsError,
    TransientError,
    WeightsError,
    may_pass,
    nearest,
)


def test_the_message_says_what_was_wrong_what_was_got_what_is_allowed_and_what_to_do():
    error = GraftError("`a.b` is wrong", got=3, allowed="1 or 2", todo="change it")
    assert str(error).splitlines() == ["`a.b` is wrong", "  got:     3", "  allowed: 1 or 2", "  do:      change it"]


def test_a_message_leaves_out_what_is_not_known():
    assert str(GraftError("it is wrong")) == "it is wrong"


def test_a_false_value_that_was_got_is_shown():
    assert "got:     0" in str(GraftError("it is wrong", got=0))


@pytest.mark.parametrize("kind", [ParamsError, DataError, WeightsError])
def test_every_error_for_the_user_is_a_graft_error(kind):
    assert issubclass(kind, GraftError)


def test_the_parts_of_a_message_can_be_read_one_by_one():
    error = DataError("what", got="got", allowed="allowed", todo="todo")
    assert (error.what, error.got, error.allowed, error.todo) == ("what", "got", "allowed", "todo")


def test_a_misspelt_name_is_answered_with_the_nearest_known_one():
    assert nearest("bakcbone", ["backbone", "weights"]) == "did you mean `backbone`?"


def test_upper_and_lower_case_count_as_alike():
    assert nearest("siglip2b", ["Backbone", "SigLIP2-B"]) == "did you mean `SigLIP2-B`?"


@pytest.mark.parametrize(("name", "meant"), [("resnet5O", "resnet50"), ("ResNet5O", "ResNet50")])
def test_of_two_spellings_the_one_in_the_same_case_is_meant(name, meant):
    assert nearest(name, ["ResNet50", "resnet50"]) == f"did you mean `{meant}`?"


def test_a_name_like_no_other_is_answered_with_nothing():
    assert nearest("zzz", ["backbone", "weights"]) == ""


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ESTALE, errno.EBUSY])
def test_a_disk_or_a_network_that_did_not_answer_may_pass(number):
    assert may_pass(OSError(number, "it broke"))
    assert may_pass(TransientError("it broke"))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_missing_file_or_a_full_disk_does_not_pass(number):
    assert not may_pass(OSError(number, "it broke"))
    assert not may_pass(GraftError("it is wrong"))


def test_what_an_error_came_from_decides():
    error = GraftError("cannot be read")
    error.__cause__ = OSError(errno.EIO, "it broke")

    assert may_pass(error)
