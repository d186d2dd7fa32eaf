"""The log of a run is brief."""

from __future__ import annotations

import logging

import pytest

from graft.flows.retrain.run_log import LOGGERS, make_brief
from graft.tasks.common.core.errors import GraftError


@pytest.mark.parametrize("name", LOGGERS)
def test_user_errors_have_no_traceback_and_good_ends_no_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make_brief()
    make_brief()
    logger = logging.getLogger(name)
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger=name)
    caplog.clear()

    logger.info("Finished in state Completed()")
    logger.info("Finished in state Completed('nothing to do')")
    logger.error("Finished in state Failed('it broke')")
    for error in (GraftError("wrong", todo="fix it"), ValueError("a bug")):
        try:
            raise error
        except (GraftError, ValueError):
            logger.exception("Encountered an exception")
    logger.removeHandler(caplog.handler)

    lines = [(record.getMessage(), bool(record.exc_info)) for record in dict.fromkeys(caplog.records)]
    assert lines == [
        ("Finished in state Completed('nothing to do')", False),
        ("Finished in state Failed('it broke')", False),
        ("wrong\n  do:      fix it", False),
        ("Encountered an exception", True),
    ]
    assert len(logger.filters) == 1, "added once"
