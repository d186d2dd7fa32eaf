"""The features of any files by a Ray cluster, for `graft predict`: nodes run the backbones of a package, and what they
compute goes into the cache of this machine, from which the answers are made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.core.errors import GraftError, TransientError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.engines.openvino import cpu_has_fast_bf16
from graft.tasks.common.feature_cache.segments import SEGMENT
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import content_of
from graft.tasks.common.images.unreadable import UnreadableImage
from graft.tasks.features.runners.pinned import versions
from graft.tasks.register.packaged_eyes import eyes_in

from ..runtime.params import ComputeParams
from .driver import ITEMS, JOB
from .features import fetch_segment
from .fetch import OBJECTS, THREADS
from .follow import END, Report
from .jobs import Prepared, Shared, prepared, put_blobs, share
from .objects import in_remote
from .pool import FAILED, FATAL, REFUSED


def compute_on_nodes(
    files: Mapping[str, Path],
    package: Path,
    facts: Mapping[str, Any],
    caches: Sequence[Mapping[str, Any]],
    compute: ComputeParams,
    root: Path,
    done: Callable[[int], Any],
) -> None:
    """Fills this machine's cache with the features of files. One that cannot be read is left out.

    Args:
        files: md5 -> the file.
        package: the folder of the model.
        facts: of its package.json.
        caches: for each backbone `folder`, `dimension` and `dtype` of its cache.
        done: is told of how many images features have come.

    Raises:
        GraftError: the cluster, the remote or the exchange cannot be used.
    """
    shared = share(compute, root)
    with prepared(shared, "predict") as job:
        uploaded = _uploaded(list(files), shared)
        sent = _upload({md5: files[md5] for md5 in uploaded}, job)
        table = _table([md5 for md5 in files if md5 in sent or md5 not in uploaded], uploaded)
        _write(job, table, package, facts, caches)
        with job.reports() as reports:
            say(f"predicting: {len(table):,} images in blocks of {compute.block:,}, job {job.name}")
            for report in reports:
                _hear(report, shared, root)
                done(int(report.get("computed", 0)))


def _uploaded(names: list[str], shared: Shared) -> set[str]:
    """Those that the DVC remote does not hold."""
    return set(names) - in_remote(shared, names)


def _upload(files: Mapping[str, Path], job: Prepared) -> set[str]:
    """Puts files beside the job, where DVC's remote would have them; the md5s of those that could be read."""

    def put(md5: str) -> bool:
        try:
            with content_of(files[md5], Limits(), md5) as content:
                job.folder.put(f"{OBJECTS}/{md5[:2]}/{md5[2:]}", content)
        except TransientError:
            raise
        except (OSError, UnreadableImage, GraftError):  # it has changed since: named when it is read again
            return False
        return True

    sent: set[str] = set()
    with ThreadPoolExecutor(THREADS, "upload") as pool:
        for rows in blocks(len(files), SEGMENT):
            some = list(files)[rows]
            sent |= {md5 for md5, is_sent in zip(some, pool.map(put, some), strict=True) if is_sent}
    if files:
        say(f"predicting: uploaded {len(sent):,} images to the exchange, for the nodes")
    return sent


def _table(names: list[str], uploaded: set[str]) -> pd.DataFrame:
    is_uploaded: npt.NDArray[np.bool_] = np.array([md5 in uploaded for md5 in names], np.bool_)
    return pd.DataFrame({"image_id": names, "stored": names, "offset": 0, "size": -1, "uploaded": is_uploaded})


def _write(
    job: Prepared,
    table: pd.DataFrame,
    package: Path,
    facts: Mapping[str, Any],
    caches: Sequence[Mapping[str, Any]],
) -> None:
    graphs = [package / f"{eye['graph']}{suffix}" for eye in eyes_in(dict(facts)) for suffix in (".xml", ".bin")]
    files = [package / "package.json", *graphs]
    told = {
        **job.shared.told,
        "kind": "predict",
        "folder": f"jobs/{job.name}",
        "versions": versions(False),
        "package": {"files": [file.name for file in files], "blobs": put_blobs(job.shared.exchange, files)},
        "fast": cpu_has_fast_bf16(),
        "caches": list(caches),
        "small": False,
        "node_cache_gb": job.shared.compute.node_cache_gb,
        "gpu": False,
    }
    with tempfile.TemporaryDirectory() as place:
        items = Path(place) / ITEMS
        table.to_parquet(items, index=False, row_group_size=job.shared.compute.block)
        job.folder.put_file(items, ITEMS)
    job.folder.put(JOB, json.dumps(told).encode())


def _hear(report: Report, shared: Shared, root: Path) -> None:
    if FATAL in report:
        raise GraftError(report[FATAL])
    if REFUSED in report:
        say(f"predicting: the node {report['host']} is left out: {report[REFUSED]}")
    elif FAILED in report:
        say(f"predicting: a block failed on the nodes, and is computed here: {report['reason']}")
    elif END not in report:
        for name in report["segments"]:
            fetch_segment(shared.exchange, name, Paths(root))
