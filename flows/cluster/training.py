"""Fine-tuning on a Ray cluster: what the stage calls in place of its own training, see `finetune.order.Elsewhere`.

Each training is one job. It is named after its checkpoint, which it continues if an earlier job has left one at the
exchange, and whose last one is the result.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import PROTOCOL, say
from graft.tasks.features.runners.pinned import versions

from ..runtime.params import ComputeParams
from ..versioning.dvc_config import configuration
from . import lease
from .driver import JOB, VARIABLE
from .exchange import Folder, Place, open_place, place_of_exchange, place_of_remote
from .features import ended_by_signals, remote_of, remove_old
from .follow import LINES, reports
from .objects import Objects, push
from .pool import FATAL
from .submit import connect, job_name, submitted

if TYPE_CHECKING:
    from graft.tasks.finetune.order import Order

DRIVER = "graft.flows.cluster.training_driver"


@dataclass(frozen=True)
class RayTraining:
    """Trains on the cluster that `compute` names, for the project of `paths`."""

    compute: ComputeParams
    paths: Paths

    def __call__(self, order: Order) -> None:
        """Raises:
        GraftError: the cluster, the remote or the exchange cannot be used, or the training has failed.
        """
        from .training_files import TrainingFiles  # loads torch, which the stage may not need

        config = configuration(self.paths.root)
        remote = remote_of(self.paths.root)
        place = place_of_exchange(config, remote, self.compute.exchange)
        exchange = open_place(place, config)
        files = TrainingFiles(exchange, order.checkpoint.stem)
        images = self._images(order, remote) if order.maps is None else None
        files.give(order, images)
        self._run(exchange, place, place_of_remote(config, remote), order)
        last = files.checkpoints()
        if not last:
            raise GraftError("the exchange has lost the result of the training", todo="run again")
        files.take_checkpoint(last[-1], order.checkpoint)
        files.remove()

    def _images(self, order: Order, remote: str) -> pd.DataFrame:
        """Where those of the training are in the remote, which lacks none of them afterwards."""
        rows = order.pack.index.iloc[np.concatenate([order.train, order.inner])]
        found = pd.DataFrame({"md5": rows["image_id"].to_numpy(), **Objects(self.paths.raw, self.paths.root).of(rows)})
        pushed = push(self.paths.root, remote, found["stored"])
        if pushed:
            say(f"finetune: pushed {pushed:,} files of data/raw to the DVC remote, for the nodes")
        return found

    def _run(self, exchange: Folder, place: Place, remote: Place, order: Order) -> None:
        client, name = connect(self.compute.address), job_name("finetune")
        folder, seconds = exchange.below(f"jobs/{name}"), self.compute.lease_seconds
        remove_old(exchange.below("jobs"))
        told = {"exchange": place.as_dict(), "folder": f"jobs/{name}", "lease_seconds": seconds}
        variables = {VARIABLE: json.dumps(told), PROTOCOL: os.environ.get(PROTOCOL, "")}
        try:
            folder.put(JOB, json.dumps(self._job(remote, order)).encode())
            with (
                ended_by_signals(),
                lease.renewed(folder, seconds),
                submitted(client, name, DRIVER, variables) as job,
            ):
                say(f"finetune: job {name} at {client.get_address()}")
                for report in reports(job, folder):
                    for line in report.get(LINES, []):
                        say(line)
                    if FATAL in report:
                        raise GraftError(report[FATAL])
        finally:
            folder.remove()

    def _job(self, remote: Place, order: Order) -> dict[str, object]:
        return {
            "training": order.checkpoint.stem,
            "remote": remote.as_dict(),
            "versions": versions(True),
            "most": order.params.processes or order.most,
            "node_cache_gb": self.compute.node_cache_gb,
        }
