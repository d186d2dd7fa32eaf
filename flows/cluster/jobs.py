"""One job from its folder in the exchange to its last report."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import sha256

from ..runtime.params import ComputeParams
from ..versioning.dvc_config import configuration, dvc_remote
from . import lease
from .driver import VARIABLE
from .exchange import Folder, Place, open_place, place_of_exchange, place_of_remote
from .follow import Report, reports
from .submit import connect, job_name, submitted

DRIVER = "graft.flows.cluster.driver"

OLD = 7 * 24 * 3600.0
"""Seconds after which the folder of a job whose submitter was killed is removed."""


@dataclass(frozen=True)
class Shared:
    """What this machine and the nodes of a cluster share.

    Attributes:
        remote: the name of the DVC remote.
        told: how nodes reach the `exchange` and the `remote`, without secrets.
    """

    compute: ComputeParams
    config: Mapping[str, Any]
    remote: str
    exchange: Folder
    told: dict[str, Any]


def share(compute: ComputeParams, root: Path) -> Shared:
    """Raises:
    GraftError: the project has no DVC remote, or the exchange cannot be opened.
    """
    config = configuration(root)
    remote = dvc_remote(root)
    if not remote:
        raise GraftError(
            "`compute.engine: ray` needs a DVC remote, from which the nodes fetch the images",
            got="no default remote",
            todo="add one that the nodes reach: `dvc remote add --default NAME ADDRESS`",
        )
    place: Place = place_of_exchange(config, remote, compute.exchange)
    told = {"exchange": place.as_dict(), "remote": place_of_remote(config, remote).as_dict()}
    return Shared(compute, config, remote, open_place(place, config), told)


@dataclass(frozen=True)
class Prepared:
    """A job that is not submitted yet; `folder` is its folder in the exchange."""

    shared: Shared
    client: Any
    name: str
    folder: Folder

    @contextmanager
    def reports(self, driver: str = DRIVER, **more: str) -> Iterator[Iterator[Report]]:
        """Submits the job, and gives what it reports; it is stopped when the block ends.

        Args:
            driver: the module that runs in the cluster.
            more: variables of its environment.
        """
        compute = self.shared.compute
        variables = {"exchange": self.shared.told["exchange"], "folder": f"jobs/{self.name}"}
        variables |= {"lease_seconds": compute.lease_seconds}
        with (
            _ended_by_signals(),
            lease.renewed(self.folder, compute.lease_seconds),
            submitted(self.client, self.name, driver, {VARIABLE: json.dumps(variables), **more}) as job,
        ):
            yield reports(job, self.folder)


@contextmanager
def prepared(shared: Shared, kind: str) -> Iterator[Prepared]:
    """A new job, whose folder is removed when the block ends.

    Args:
        kind: a word for its name.

    Raises:
        GraftError: the cluster cannot be reached.
    """
    client = connect(shared.compute.address)
    name = job_name(kind)
    folder = shared.exchange.below(f"jobs/{name}")
    _remove_old(shared.exchange.below("jobs"))
    try:
        yield Prepared(shared, client, name, folder)
    finally:
        folder.remove()


def put_blobs(exchange: Folder, files: Sequence[Path]) -> list[str]:
    """Puts files into the exchange, unless they are there; their SHA-256, by which nodes fetch them."""
    blobs = [sha256(file) for file in files]
    for file, blob in zip(files, blobs, strict=True):
        if not exchange.has(f"blobs/{blob}"):
            exchange.put_file(file, f"blobs/{blob}")
    return blobs


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as an exception, so that the job is stopped; otherwise Python ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _remove_old(jobs: Folder) -> None:
    """Folders of jobs whose submitter and driver were killed."""
    oldest = time.strftime("%Y%m%d-%H%M%S", time.gmtime(time.time() - OLD))
    for name in jobs.names():
        stamp = "-".join(name.split("-")[-3:-1])
        if len(stamp) == len(oldest) and stamp < oldest:
            jobs.below(name).remove()
