"""The label that each image has now: from folders and tables, and from data/labels.csv over these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.task import Task
from graft.tasks.preprocess.label_history import Standing, read_answers, standings
from graft.tasks.preprocess.scan import TABLE, scan

from ..runtime.params import load_params
from ..versioning import dvc
from .pool import read_pool


@dataclass(frozen=True)
class Labels:
    """The images of a project and their labels.

    Attributes:
        task: what the labels are.
        data: columns `image_id`, `path` (below data/raw), `label` (null without one) of the images of data/raw.
        pool: the index of the pool, see `pool.COLUMNS`.
        standing: image id -> what the answers about it amount to.
    """

    task: Task
    data: pd.DataFrame
    pool: pd.DataFrame
    standing: Mapping[str, Standing]

    def of(self, image_id: str) -> str:
        """The label of an image; empty without one."""
        given = self.standing.get(image_id)
        if given is not None and given.decided is not None:
            return given.label or ""
        return self._by_folder.get(image_id, "")

    def known(self, image_id: str) -> bool:
        return image_id in self._by_folder or image_id in self._in_pool

    @property
    def waiting(self) -> pd.DataFrame:
        """The images of the pool about which nobody has answered."""
        return self.pool[~self.pool["image_id"].isin(set(self.standing))]

    @cached_property
    def _by_folder(self) -> dict[str, str]:
        labels = self.data["label"].where(self.data["label"].notna(), "")
        return dict(zip(self.data["image_id"], labels))

    @cached_property
    def _in_pool(self) -> set[str]:
        return set(self.pool["image_id"])


def read_labels_now(root: Path) -> Labels:
    """Raises:
    DataError: data/raw or data/labels.csv cannot be read.
    """
    paths = Paths(root)
    task = load_params(paths.params).head.task
    pool = read_pool(root)
    return Labels(task, _data(paths, task), pool, standings(read_answers(paths.labels)))


def _data(paths: Paths, task: Task) -> pd.DataFrame:
    hashes = dvc.raw_hashes(paths.root) if paths.raw.is_dir() else {}
    hashes = hashes or (dvc.raw_listing(paths.root) if paths.raw.is_dir() else {})
    if not hashes:
        return pd.DataFrame({name: pd.Series(dtype=object) for name in ("image_id", "path", "label")})
    files = scan(paths.raw, task)
    files = files[(files["path"] != TABLE) & files["path"].isin(set(hashes))]
    return files.assign(image_id=[hashes[path] for path in files["path"]])[["image_id", "path", "label"]]
