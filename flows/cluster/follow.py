"""What a job reports, as its submitter hears it: numbered files in the job's folder of the exchange.

Neither side lists a folder or holds a connection: the driver writes the next number, the submitter asks for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from graft.tasks.common.core.errors import TransientError

from .exchange import Folder
from .submit import ENDED, Job

POLL = 0.5
"""Seconds between two questions for the next report."""

ASK = 4
"""Questions for a report for each one for the job's status."""

END = "end"
"""The key of the last report."""

LINES = "lines"
"""The key of a report with lines for the user."""

Report = dict[str, Any]


class Reporter:
    """The driver's side.

    Args:
        folder: of the job.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder, self._next = folder, 0

    def __call__(self, report: Report) -> None:
        self._folder.put(_name(self._next), json.dumps(report).encode())
        self._next += 1


def reports(job: Job, folder: Folder) -> Iterator[Report]:
    """All reports of a job until its last, which has `END`.

    Raises:
        TransientError: the job, its cluster or the exchange has failed.
    """
    number, asked = 0, 0
    while True:
        content = folder.get(_name(number))
        if content is not None:
            number += 1
            report: Report = json.loads(content)
            yield report
            if END in report:
                return
            continue
        asked += 1
        if asked % ASK == 1 and job.status() in ENDED and folder.get(_name(number)) is None:
            raise TransientError(
                f"the job {job.name} ended before its work was done",
                got=f"{job.status()}: {job.last_words()}",
                todo="run again: what has been computed is kept",
            )
        time.sleep(POLL)


def _name(number: int) -> str:
    return f"reports/{number:08}.json"
