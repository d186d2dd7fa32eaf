"""The driver of a job, run in the cluster: `python -m graft.flows.cluster.driver`. It hands blocks of images to the
nodes, and reports to the submitter what they have computed."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.progress import say

from . import lease
from .exchange import Folder, Place, open_place
from .follow import END, Reporter
from .pool import FATAL, Block, Pool, Worker

if TYPE_CHECKING:
    from .embedder import Node

VARIABLE = "GRAFT_JOB"
"""The variable with the job, as JSON: `exchange`, `folder` and `lease_seconds`."""

JOB, ITEMS = "job.json", "items.parquet"
"""What a job's folder holds: what to do; and the images, one row group a block."""


Work = Callable[[Folder, dict[str, Any], Reporter], None]
"""(the job's folder, what the driver was told, where to report) -> done."""


def main() -> int:
    return drive(work)


def drive(work: Work) -> int:
    """Does the work of a job as long as the lease lasts, and reports its end, or why it cannot be done; returns 0."""
    told = json.loads(os.environ[VARIABLE])
    folder = open_place(Place(**told["exchange"])).below(told["folder"])
    lease.watch(folder, told["lease_seconds"], lambda: _abandon(folder))
    report = Reporter(folder)
    try:
        work(folder, told, report)
    except GraftError as error:
        report({END: True, FATAL: str(error)})
        return 0
    report({END: True})
    return 0


def work(folder: Folder, told: dict[str, Any], report: Reporter) -> None:
    """Hands out all blocks.

    Raises:
        GraftError: the work cannot be done.
    """
    import ray

    ray.init(log_to_driver=False, configure_logging=False)
    job = json.loads(_need(folder, JOB)) | {"exchange": told["exchange"]}
    with tempfile.TemporaryDirectory() as place:
        items = Path(place) / ITEMS
        folder.get_file(ITEMS, items)
        Pool(lambda worker: start(worker, job), report, job["gpu"]).run(_blocks(items))


def start(worker: Worker, job: dict[str, Any]) -> Any:
    """The actor of a worker, on its node alone, with all of the node's processors, or its share of them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(_kind(job["kind"]))
        .options(
            num_cpus=worker.cores,
            num_gpus=worker.gpus,
            max_concurrency=3,
            scheduling_strategy=NodeAffinitySchedulingStrategy(worker.node, soft=False),
            runtime_env={"env_vars": {"GRAFT_CORES": str(max(1, worker.cores))}},
        )
        .remote(job)
    )


def _kind(name: str) -> type[Node]:
    if name == "predict":
        from .package_embedder import PackageEmbedder

        return PackageEmbedder
    from .embedder import Embedder

    return Embedder


def _blocks(items: Path) -> Iterator[Block]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(items) as file:
        for number in range(file.num_row_groups):
            yield Block(number, file.read_row_group(number))


def _need(folder: Folder, name: str) -> bytes:
    content = folder.get(name)
    if content is None:
        raise GraftError(f"{folder.path(name)} does not exist", todo="run again")
    return content


def _abandon(folder: Folder) -> None:
    """Ends the job: Ray ends the workers with the driver."""
    say("the machine that submitted this job has been silent for too long: the job ends")
    folder.remove()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
