"""Which images an execution used: its manifest, found by DVC's hash and cached."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from graft.tasks.code import tree_hash
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import write_shared
from graft.tasks.common.images.reading import NAME as READING
from graft.tasks.register.reference_set import Reference

from ..registry.models import fetched_package
from ..tracking.artifacts import fetched_artifacts
from ..tracking.tracker import Tracker
from ..versioning import dvc
from .executions import Execution

COLUMNS = ["image_id", "path", "label", "split", "task", "reason"]
"""The cached columns of a manifest; `split` is `rejected` where there is a `reason`."""

REJECTED, SEEN, HELD_OUT = "rejected", "seen", "held out"
"""Values in place of a split: for rejected files, and for images that only the package records."""

FILES = ("manifest.parquet", "rejected.parquet")


@dataclass(frozen=True)
class ImageList:
    """The images of an execution.

    Attributes:
        table: `COLUMNS`; without path and label where only the package's reference records the images.
        exact: whether the splits are known.
        note: why they are not; empty if they are.
    """

    table: pd.DataFrame
    exact: bool = True
    note: str = ""


class ImageLists:
    """The image lists of a project's executions."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker, self._root = tracker, tracker.paths.root
        self._lost: dict[str, str] = {}
        self._held: dict[str, bytes] = {}

    def whole(self, execution: Execution | None, version: ModelVersion | None) -> ImageList | None:
        """All images of an execution; None if nothing records them."""
        return self._look(execution, version, None, None)

    def some(
        self,
        execution: Execution | None,
        version: ModelVersion | None,
        image_ids: Sequence[str],
        paths: Sequence[str] = (),
    ) -> ImageList | None:
        """The images with one of these md5s or paths; None if nothing records the images."""
        return self._look(execution, version, image_ids, paths)

    def _look(
        self,
        execution: Execution | None,
        version: ModelVersion | None,
        image_ids: Sequence[str] | None,
        paths: Sequence[str] | None,
    ) -> ImageList | None:
        kept = self._remembered(execution) if execution is not None and execution.manifest else None
        if kept is not None:
            wanted = [("image_id", image_ids), ("path", paths)]
            either = [[(column, "in", list(values))] for column, values in wanted if values]
            return ImageList(pd.read_parquet(kept, filters=either or None))
        by_path_alone = image_ids is not None and not image_ids  # a package knows only md5s
        known = self._reference(version) if version is not None and not by_path_alone else None
        if known is None:
            return None
        lost = self._lost.get(execution.manifest, "") if execution is not None else ""
        note = f"the list of images is lost{f' ({lost})' if lost else ''}; the package records only what was held out"
        if image_ids is not None:
            known = known[known["image_id"].isin(image_ids)]
        return ImageList(known.reset_index(drop=True), exact=False, note=note)

    def _remembered(self, execution: Execution) -> Path | io.BytesIO | None:
        """The cached part of a manifest, as Parquet; None if the manifest is not available."""
        digest = execution.manifest
        file = self._tracker.paths.cache / "lineage" / f"{digest.removesuffix('.dir')}.parquet"
        if file.is_file():
            return file
        if digest not in self._held and digest not in self._lost:
            found = self._manifest(execution)
            if found is not None:
                table, whole = self._compact(*found, execution.raw)
                self._held[digest] = table.to_parquet(index=False, engine="pyarrow", compression="zstd")
                if whole:  # without DVC's listing of data/raw the md5s of rejected files are missing, for now
                    write_shared(file, self._held[digest])
        return io.BytesIO(self._held[digest]) if digest in self._held else None

    def _manifest(self, execution: Execution) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Both tables of a manifest: from DVC's cache, its remote, or the artifacts of the run that made it."""
        try:
            files = dvc.bring_back(self._root, execution.manifest, "the lists of images")
            return self._read([files[name] for name in FILES])
        except GraftError as error:
            reason = str(error.got)
        run = execution.stages.get("preprocess")
        logged = self._logged(str(run.info.run_id), execution.manifest) if run is not None else None
        if logged is None:
            self._lost[execution.manifest] = reason
        return logged

    def _logged(self, run_id: str, digest: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """The copies among the artifacts of the stage's run, if they have the hash."""
        try:
            for names in ((*FILES, READING), FILES):  # earlier versions of Graft wrote no `READING`
                with fetched_artifacts(self._tracker, run_id, *names) as folder:
                    if folder is not None and tree_hash(folder) == digest:
                        return self._read([folder / name for name in FILES])
            return None
        except GraftError:
            return None

    def _read(self, files: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
        images = pd.read_parquet(files[0], columns=["image_id", "path", "label", "split", "task"])
        return images, pd.read_parquet(files[1])

    def _compact(self, images: pd.DataFrame, rejected: pd.DataFrame, raw: str) -> tuple[pd.DataFrame, bool]:
        """`COLUMNS` of both tables, and whether all md5s are known."""
        listed = dvc.images_of(self._root, raw) or {}
        task = images["task"].iloc[0] if len(images) else ""
        ids = [listed.get(path, "") for path in rejected["path"]]
        out = rejected.assign(image_id=ids, split=REJECTED, task=task)
        table = pd.concat([images.assign(reason=""), out])[COLUMNS].astype("string")
        return table.sort_values("path", ignore_index=True), all(ids)

    def _reference(self, version: ModelVersion) -> pd.DataFrame | None:
        """What the package records: which images it was trained on, and which were held out."""
        try:
            with fetched_package(self._tracker, version) as package:
                reference = Reference.load(package)
        except GraftError:
            return None
        return None if reference is None else pd.DataFrame(_of_reference(reference), columns=COLUMNS).astype("string")


def _of_reference(reference: Reference) -> Iterator[tuple[str, str, str, str, str, str]]:
    for split, ids in ((SEEN, reference.seen_ids), (HELD_OUT, reference.held_out_ids)):
        for row in ids.view(np.uint8).reshape(-1, 16):
            yield row.tobytes().hex(), "", "", split, "", ""
