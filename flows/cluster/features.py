"""The runner of the features stage on a Ray cluster, see `graft.tasks.features.work.Runner`.

What earlier jobs left in the exchange is collected first, then what is still missing goes out as one job. Segments are
copied into the cache of this machine as they come, so that a run that is ended at any moment loses only the blocks that
nodes were working on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.common.core.errors import DataError, GraftError, TransientError
from graft.tasks.common.core.files import digest, write_shared
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress, say
from graft.tasks.common.feature_cache.segments import FeatureCache, Ids, ids_in
from graft.tasks.common.images.reading import RESTORE
from graft.tasks.features.runners.pinned import describe, versions
from graft.tasks.features.work import Effort, Eye, Mask, Source, account, announce

from ..runtime.params import ComputeParams
from .driver import ITEMS, JOB
from .exchange import Folder
from .follow import END, Report
from .jobs import Prepared, Shared, prepared, put_blobs, share
from .objects import Objects, push
from .pool import FAILED, FATAL, REFUSED

NAMED = 5
"""Images that an error names."""


@dataclass
class Heard:
    """What a job has reported.

    Attributes:
        nodes: that have computed something.
        rejected: path -> why it cannot be read.
        failed: reasons of blocks that failed each time.
    """

    nodes: set[str] = field(default_factory=set)
    rejected: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RayRunner:
    """Computes on the cluster that `compute` names, for the project of `paths`."""

    compute: ComputeParams
    paths: Paths

    def __call__(self, eyes: list[Eye], wanted_EM: Mask, source: Source, effort: Effort) -> None:
        """See `Runner`.

        Raises:
            GraftError: the cluster, the remote or the exchange cannot be used.
            DataError: images cannot be read; all others have been computed.
        """
        started = time.perf_counter()
        shared = share(self.compute, self.paths.root)
        exchange = shared.exchange
        found = collect(exchange, eyes, wanted_EM, source, self.paths)
        if found:
            say(f"features: {found:,} computed by an earlier job, collected from the exchange")
        left_EM = _left(eyes, wanted_EM, source)
        heard = Heard()
        if left_EM.any():
            for line in announce(eyes, left_EM):
                say(line)
            self._run(shared, eyes, left_EM, source, heard)
        account(eyes, left_EM, effort)
        source.small.refresh()
        effort.seconds += time.perf_counter() - started
        effort.nodes = max(effort.nodes, len(heard.nodes))
        _judge(heard)

    def _run(self, shared: Shared, eyes: list[Eye], wanted_EM: Mask, source: Source, heard: Heard) -> None:
        with prepared(shared, "features") as job:
            self._write(job, eyes, wanted_EM, source)
            with job.reports() as reports, progress("features: extracting", int(np.count_nonzero(wanted_EM))) as bar:
                say(f"features: blocks of {self.compute.block:,}, job {job.name} at {job.client.get_address()}")
                for report in reports:
                    self._hear(report, shared.exchange, source, heard)
                    bar.add(int(report.get("computed", 0)))

    def _write(self, prepared: Prepared, eyes: list[Eye], wanted_EM: Mask, source: Source) -> None:
        """What the job needs, also in the remote."""
        exchange = prepared.shared.exchange
        job = {
            **prepared.shared.told,
            "kind": "features",
            "versions": versions(source.items.views > 0),
            "params": source.params.model_dump(mode="json"),
            "reading": source.reading.as_dict(),
            "eyes": [_eye(eye, exchange, self.paths) for eye in eyes],
            "small": bool((~source.small.has(source.items.ids))[source.items.numbers == 0].any()),
            "node_cache_gb": self.compute.node_cache_gb,
            "gpu": eyes[0].extractor.device == "cuda",
        }
        with tempfile.TemporaryDirectory() as place:
            items = Path(place) / ITEMS
            stored = self._list(items, wanted_EM, source)
            pushed = push(self.paths.root, prepared.shared.remote, stored)
            prepared.folder.put_file(items, ITEMS)
        if pushed:
            say(f"features: pushed {pushed:,} files of data/raw to the DVC remote, for the nodes")
        prepared.folder.put(JOB, json.dumps(job).encode())

    def _list(self, file: Path, wanted_EM: Mask, source: Source) -> dict[str, None]:
        """Writes the items that any backbone wants, in their order, a row group a block: what `BlockRunner.compute`
        takes, and where each image is. Returns the objects that hold them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        objects, stored = Objects(source.raw, self.paths.root), dict[str, None]()
        places = np.flatnonzero(wanted_EM.any(axis=0))
        with ExitStack() as held:
            writer = None
            for start in range(0, len(places), self.compute.block):
                table = _table(places[start : start + self.compute.block], wanted_EM, source, objects)
                stored |= dict.fromkeys(table["stored"])
                rows = pa.Table.from_pandas(table, preserve_index=False)
                writer = writer or held.enter_context(pq.ParquetWriter(file, rows.schema))
                writer.write_table(rows)
        return stored

    def _hear(self, report: Report, exchange: Folder, source: Source, heard: Heard) -> None:
        if FATAL in report:
            raise GraftError(report[FATAL])
        if REFUSED in report:
            say(f"features: the node {report['host']} is left out: {report[REFUSED]}")
        elif FAILED in report:
            heard.failed.append(report["reason"])
        elif END not in report:
            heard.nodes.add(report["node"])
            heard.rejected |= report["rejected"]
            for name in report["segments"]:
                fetch_segment(exchange, name, self.paths)


def _eye(eye: Eye, exchange: Folder, paths: Paths) -> dict[str, Any]:
    """A backbone as told to nodes; its files are put into the exchange."""
    facts, files = describe(eye, paths)
    return facts | {"blobs": put_blobs(exchange, files)}


def _table(places: npt.NDArray[np.int64], wanted_EM: Mask, source: Source, objects: Objects) -> pd.DataFrame:
    items = source.items
    manifest = source.manifest.iloc[items.rows[places]]
    return pd.DataFrame(
        {
            "id": [one.tobytes().hex() for one in items.ids[places]],
            "image_id": manifest["image_id"].to_numpy(),
            "path": manifest["path"].to_numpy(),
            "number": items.numbers[places],
            **objects.of(manifest),
            **{f"wanted_{number}": wanted_M[places] for number, wanted_M in enumerate(wanted_EM)},
        }
    )


def _left(eyes: Sequence[Eye], wanted_EM: Mask, source: Source) -> Mask:
    """What the caches still lack."""
    return np.array(
        [wanted_M & ~eye.cache.has(source.items.ids) for eye, wanted_M in zip(eyes, wanted_EM, strict=True)]
    )


def collect(exchange: Folder, eyes: list[Eye], wanted_EM: Mask, source: Source, paths: Paths) -> int:
    """Copies the segments of the exchange that have something wanted; returns for how many items."""
    before = int(np.count_nonzero(_left(eyes, wanted_EM, source)))
    ids = source.items.ids
    for eye, wanted_M in zip(eyes, wanted_EM, strict=True):
        _collect(exchange, eye.cache, ids[wanted_M], paths)
    if before:
        _collect(exchange, source.small, ids[source.items.numbers == 0], paths)
    return before - int(np.count_nonzero(_left(eyes, wanted_EM, source)))


def _collect(exchange: Folder, cache: FeatureCache, ids: Ids, paths: Paths) -> None:
    below = cache.folder.relative_to(paths.cache).as_posix()
    wanted = ids[~cache.has(ids)]
    names = exchange.below(below).names() if len(wanted) else []
    for name in names:
        is_new = name.endswith(".safetensors") and not (cache.folder / name).exists()
        if is_new and np.isin(exchange.read(f"{below}/{name}", ids_in), wanted).any():
            fetch_segment(exchange, f"{below}/{name}", paths)
    cache.refresh()


def fetch_segment(exchange: Folder, name: str, paths: Paths) -> None:
    """Copies a segment of the exchange to the same place in this machine's cache. One that is damaged is left out: its
    images are computed again."""
    content = exchange.get(name)
    target = paths.cache / name
    if content is None or digest(content) != target.stem:
        say(f"features: the segment {target.name} of the exchange is {'missing' if content is None else 'damaged'}")
    elif not target.exists():
        write_shared(target, content)


def _judge(heard: Heard) -> None:
    """Raises:
    DataError: images cannot be read.
    TransientError: blocks failed each time.
    """
    if heard.rejected:
        named = [f"{path}: {reason}" for path, reason in list(heard.rejected.items())[:NAMED]]
        raise DataError(
            f"{len(heard.rejected):,} images cannot be read on the nodes, though they could when they were checked",
            got="; ".join(named) + ("; ..." if len(heard.rejected) > NAMED else ""),
            todo=RESTORE,
        )
    if heard.failed:
        raise TransientError(
            f"{len(heard.failed):,} blocks of images failed on every node that tried",
            got="; ".join(list(dict.fromkeys(heard.failed))[:NAMED]),
            todo="see what failed, then run again: all other features are kept",
        )
