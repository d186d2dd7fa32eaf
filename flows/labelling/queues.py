"""The queues of the label page: which images to show, in which order, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.task import GOOD
from graft.tasks.preprocess.label_history import Answer, given_since

from .current import Labels

QUEUES = {
    "suspect": "labels that look wrong",
    "conflict": "the same picture under two labels",
    "leak": "the same picture in two splits",
    "outlier": "unlike all others",
    "unsure": "unsure answers of the model server",
    "pool": "images without a label",
}
"""Each queue, and what is in it."""

OF_AUDIT = {"suspect": "label_issues", "conflict": "conflicts", "leak": "leaks", "outlier": "outliers"}
"""Queue -> the table of data/audit that it is made of."""


@dataclass(frozen=True)
class Item:
    """An image to show.

    Attributes:
        image_id: the md5 of its file.
        path: of the file, below the project's root.
        queue: one of `QUEUES`.
        why: what the answer gives as its reason: the queue, or the strategy that chose the image.
        guess: what the model takes it for; empty if it is not known.
        probability: of the guess; None without one.
        beside: another image that it is compared with, as (image_id, label); None for most.
    """

    image_id: str
    path: str
    queue: str
    why: str
    guess: str = ""
    probability: float | None = None
    beside: tuple[str, str] | None = None


def audit_items(root: Path, found: Labels) -> list[Item]:
    """The images that the audit named, by queue. One that was answered about since the audit is left out.

    Of a good image that may have a defect the kind of defect is not known, unless there is only one kind.
    """
    paths = Paths(root)
    known = set(found.data["image_id"])
    items = [item for queue in OF_AUDIT for item in _items(queue, paths) if item.image_id in known]
    if found.task == "anomaly":
        kinds = sorted(set(found.data["label"].dropna()) - {GOOD})
        items = [replace(item, guess=kinds[0] if item.guess and len(kinds) == 1 else "") for item in items]
    return list({(item.queue, item.image_id): item for item in items}.values())


def answered_since_audit(root: Path, answers: Sequence[Answer]) -> list[Answer]:
    """The answers that the last audit does not know."""
    file = Paths(root).audit / "audit.json"
    if not file.is_file():
        return list(answers)
    return given_since(answers, datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat())


def _items(queue: str, paths: Paths) -> Iterator[Item]:
    file = paths.audit / f"{OF_AUDIT[queue]}.parquet"
    if not file.is_file():
        return
    for row in pd.read_parquet(file).to_dict("records"):
        yield from _of_pair(queue, row) if "other_path" in row else [_of_row(queue, row)]


def _of_row(queue: str, row: dict[Any, Any]) -> Item:
    probability = row.get("p_suggested")
    return Item(
        str(row["image_id"]),
        f"data/raw/{row['path']}",
        queue,
        queue,
        str(row.get("suggested", "")),
        None if probability is None or pd.isna(probability) else round(float(probability), 4),
    )


def _of_pair(queue: str, row: dict[Any, Any]) -> Iterator[Item]:
    """Both images of a pair, each beside the other."""
    for one, other in (("", "other_"), ("other_", "")):
        beside = (str(row[f"{other}image_id"]), str(row[f"{other}label"]))
        yield Item(str(row[f"{one}image_id"]), f"data/raw/{row[f'{one}path']}", queue, queue, beside=beside)


def pool_items(table: pd.DataFrame, pool: pd.DataFrame) -> list[Item]:
    """The images that `choice.next_images` chose; those that a server was unsure of have a queue of their own."""
    came = dict(zip(pool["image_id"], pool["why"]))
    return [
        Item(
            str(row.image_id),
            str(row.path),
            "unsure" if came.get(row.image_id) == "unsure" else "pool",
            str(row.why),
            str(row.guess),
            None if pd.isna(row.probability) else float(row.probability),
        )
        for row in table.itertuples()
    ]
