"""What Prefect's log shows of a run: neither tracebacks of user errors nor a line for each task that has ended well."""

from __future__ import annotations

import logging

from graft.tasks.common.core.errors import GraftError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class _Brief(logging.Filter):
    """A user error is logged without a traceback; a task that has ended well, and without a message, not at all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], GraftError):
            record.msg, record.args, record.exc_info = "%s", (record.exc_info[1],), None
        return record.msg != "Finished in state Completed()"


def make_brief() -> None:
    """Adds the filter to Prefect's loggers, once."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Brief) for each in logger.filters):
            logger.addFilter(_Brief())
