"""The driver of a training, run in the cluster: `python -m graft.flows.cluster.training_driver`. It starts the training
on all nodes, and again on those that are left when one is lost."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from graft.tasks.common.core.errors import GraftError

from .driver import JOB, drive
from .exchange import Folder, Place, open_place
from .follow import LINES, Reporter
from .team import Grown, Lost, Seat, seats, work_together
from .training_files import TrainingFiles
from .training_member import train

ATTEMPTS = 3
"""Starts from the same checkpoint after which training has failed."""


def main() -> int:
    return drive(work)


def work(folder: Folder, told: dict[str, Any], report: Reporter) -> None:
    """Trains to the end: the last checkpoint at the exchange is then that of a finished training.

    Raises:
        GraftError: the training itself has failed, no node can take part, or processes are lost again and again without
            progress.
    """
    import ray

    ray.init(log_to_driver=False, configure_logging=False)
    job = json.loads(folder.get(JOB) or b"{}") | {"exchange": told["exchange"]}
    files = TrainingFiles(open_place(Place(**told["exchange"])), job["training"])
    fruitless = 0
    while True:
        places, newest = _places(job, report), _newest(files)
        report({LINES: [f"finetune: {_count(places)} share each step's images"], "nodes": _nodes(places)})
        try:
            grown = partial(_has_grown, files, places, job, newest)
            work_together(places, train, (job, newest), grown, lambda lines: report({LINES: lines}))
            return
        except Grown:
            report({LINES: ["finetune: nodes have joined; training goes on with them from the last checkpoint"]})
        except Lost as lost:
            fruitless = 0 if _newest(files) != newest else fruitless + 1
            if fruitless == ATTEMPTS:
                raise GraftError(
                    "fine-tuning on the cluster has failed",
                    got=f"{lost}, {ATTEMPTS} times from the same checkpoint",
                    todo="see what failed; `finetune.checkpoint_every` sets the minutes between checkpoints",
                ) from lost
            report({LINES: [f"finetune: a process was lost ({lost}); training goes on from the last checkpoint"]})


def _places(job: dict[str, Any], report: Reporter) -> list[Seat]:
    found, refused = seats(job["most"], job["versions"])
    if not found:
        raise GraftError(
            "no node of the cluster can take part in the training",
            got="; ".join(refused) or "no node with a processor or a GPU answers",
            todo="correct what the nodes refuse, or set `compute.engine: local`",
        )
    if refused:
        report({LINES: [f"finetune: left out: {reason}" for reason in refused]})
    return found


def _newest(files: TrainingFiles) -> str:
    return next(reversed(files.checkpoints()), "")


def _has_grown(files: TrainingFiles, places: list[Seat], job: dict[str, Any], started: str) -> bool:
    """Whether more processes could share the training, and there is a checkpoint since its start to go on from."""
    if len(places) >= job["most"] or _newest(files) == started:
        return False
    return len(seats(job["most"], job["versions"])[0]) > len(places)


def _nodes(places: list[Seat]) -> int:
    return len({place.node for place in places})


def _count(places: list[Seat]) -> str:
    nodes = _nodes(places)
    return f"{len(places)} process{'es' * (len(places) > 1)} on {nodes} node{'s' * (nodes > 1)}"


if __name__ == "__main__":
    sys.exit(main())
