import pytest

from graft.tasks.audit.verdicts import Verdict, failure, warnings
from graft.tasks.common.core.errors import DataError


def verdict(found, limit, action="warn", of=200, name="label_issues"):
    return Verdict(name, "labels are suspected", found, of, limit, action)


@pytest.mark.parametrize(
    ("found", "limit", "state"),
    [(4, 0.02, "ok"), (5, 0.02, "warn"), (0, 0.0, "ok"), (1, 0.0, "warn"), (5, 5.0, "ok"), (6, 5.0, "warn")],
)
def test_a_limit_below_one_is_a_share_and_otherwise_a_number(found, limit, state):
    assert verdict(found, limit).state == state


@pytest.mark.parametrize("action", ["warn", "fail", "ignore"])
def test_what_passes_its_limit_is_what_the_action_says(action):
    assert verdict(9, 0.02, action).state == action
    assert verdict(1, 0.02, action).state == "ok"


def test_a_warning_names_what_was_found_and_the_limit():
    assert warnings([verdict(9, 0.02)]) == [
        "audit: 9 of 200 labels are suspected (4.5%); `audit.max_label_issues` is 0.02 = 4"
    ]


def test_what_is_ignored_or_within_its_limit_is_not_said():
    assert warnings([verdict(9, 0.02, "ignore"), verdict(1, 0.02)]) == []


@pytest.mark.parametrize("action", ["warn", "ignore"])
def test_only_what_shall_fail_stops_the_run(action):
    assert failure([verdict(9, 0.02, action), verdict(1, 0.02, "fail")], "data/audit/index.html") is None


def test_the_error_says_what_was_found_what_is_allowed_and_what_to_do():
    verdicts = [verdict(9, 0.02, "fail"), verdict(3, 0.0, "fail", name="leaks"), verdict(9, 0.02, name="outliers")]
    error = failure(verdicts, "data/audit/index.html")
    assert isinstance(error, DataError)
    assert str(error) == "\n".join(
        [
            "the audit found more problems in the data than `audit.max_label_issues`, `audit.max_leaks` allows",
            "  got:     9 of 200 labels are suspected (4.5%); 3 of 200 labels are suspected (1.5%)",
            "  allowed: label_issues 0.02 = 4; leaks 0",
            "  do:      see data/audit/index.html; fix labels or images, raise the limit, or set "
            "`audit.on_label_issues: warn`, `audit.on_leaks: warn`",
        ]
    )


def test_where_there_is_nothing_to_find_nothing_is_found():
    assert verdict(0, 0.0, of=0).state == "ok"
    assert verdict(0, 0.0, of=0).text == "0 of 0 labels are suspected"


def test_the_limit_that_is_shown_is_the_most_that_is_allowed():
    assert verdict(2, 0.02, of=80).state == "warn"
    assert verdict(2, 0.02, of=80).bound == "0.02 = 1"
