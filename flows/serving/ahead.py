"""With `compute.engine: ray`, the nodes of a cluster compute the features of what `graft predict` is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress, say
from graft.tasks.common.feature_cache.segments import ids_of
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import content_of
from graft.tasks.common.images.unreadable import UnreadableImage

from ..runtime.params import compute_params
from .known import KnownFeatures
from .loading import Predictor
from .sources import Named


def compute_ahead(model: Predictor, files: Sequence[Named], known: KnownFeatures | None) -> None:
    """Has the nodes compute what is not known, if the project says so. What they leave out is computed here.

    Args:
        known: gets what they compute.

    Raises:
        GraftError: the cluster, the DVC remote or the exchange cannot be used.
    """
    compute = compute_params(Paths(model.root).params) if model.root is not None else None
    if model.root is None or compute is None or compute.engine != "ray":
        return
    if known is None or not known.grows:
        say("predicting: on this machine, since what nodes compute comes through the cache of features")
        return
    from ..cluster.predicting import compute_on_nodes

    missing = _missing(files, known)
    if not missing:
        return
    with progress("predicting: features by the nodes", len(missing)) as bar:
        compute_on_nodes(missing, model.folder, model.facts, known.caches(), compute, model.root, bar.add)
    known.refresh()


def _missing(files: Sequence[Named], known: KnownFeatures) -> dict[str, Path]:
    """md5 -> the file, of those that can be read and are not known."""
    found: dict[str, Path] = {}
    with ThreadPoolExecutor(cores()) as pool:
        for rows in blocks(len(files)):
            some = [named.file for named in files[rows]]
            hashed = {md5: file for file, md5 in zip(some, pool.map(_hash, some), strict=True) if md5}
            if hashed:
                is_known = known.has(ids_of(list(hashed)))
                found |= {md5: file for (md5, file), there in zip(hashed.items(), is_known, strict=True) if not there}
    return found


def _hash(file: Path) -> str:
    """Empty if it cannot be read, which is said when it is answered."""
    try:
        with content_of(file, Limits()) as content:
            return hashlib.md5(content, usedforsecurity=False).hexdigest()
    except (OSError, UnreadableImage, ValueError):
        return ""
