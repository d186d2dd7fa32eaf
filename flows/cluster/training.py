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
from .driver import JOB
from .follow import LINES
from .jobs import Shared, prepared, share
from .objects import Objects, push
from .pool import FATAL

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

        shared = share(self.compute, self.paths.root)
        files = TrainingFiles(shared.exchange, order.checkpoint.stem)
        images = self._images(order, shared.remote) if order.maps is None else None
        files.give(order, images)
        self._run(shared, order)
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

    def _run(self, shared: Shared, order: Order) -> None:
        with prepared(shared, "finetune") as job:
            job.folder.put(JOB, json.dumps(self._job(shared, order)).encode())
            with job.reports(DRIVER, **{PROTOCOL: os.environ.get(PROTOCOL, "")}) as reports:
                say(f"finetune: job {job.name} at {job.client.get_address()}")
                for report in reports:
                    for line in report.get(LINES, []):
                        say(line)
                    if FATAL in report:
                        raise GraftError(report[FATAL])

    def _job(self, shared: Shared, order: Order) -> dict[str, object]:
        return {
            "training": order.checkpoint.stem,
            "remote": shared.told["remote"],
            "versions": versions(True),
            "most": order.params.processes or order.most,
            "node_cache_gb": self.compute.node_cache_gb,
        }
