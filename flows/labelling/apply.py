"""Answers from a table: `graft label apply FILE`."""

from __future__ import annotations

import getpass
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.words import listed
from graft.tasks.common.data.task import Task
from graft.tasks.preprocess.label_history import DISCARD, SPECIAL, UNSURE, Answer, append_answers, now
from graft.tasks.preprocess.labels import read_labels, text
from graft.tasks.preprocess.tables import refuse_rows, spellings

from ..versioning.git import try_git
from .current import Labels, read_labels_now
from .exchange import read_answers_file
from .publish import publish_labels
from .take_over import take_over_labelled


def apply_labels(root: Path, file: Path, who: str = "", why: str = "", *, commit: bool = False) -> dict[str, Any]:
    """Appends the answers of a table, or of another tool's JSON, to data/labels.csv, and takes pool images that have a
    label now into data/raw.

    Args:
        file: columns `image_id` or `path` (below data/raw or data/pool, or the name that the image came with), and
            `label`; optionally `who` and `why`. A row without a label is left for later, one whose label the same
            person has given already changes nothing.
        who: the person, where the table names none; by default git's `user.name`.
        why: the reason, where the table gives none.
        commit: commit and push the answers instead, and leave the images to the next unattended run.

    Raises:
        DataError: the table lacks a column, or rows name unknown images or labels of another task; nothing is changed.
        GraftError: the images cannot be imported, or the answers not be committed; they are in data/labels.csv.
    """
    paths, found = Paths(root), read_labels_now(root)
    table = read_answers_file(file, found.task)
    rows = _rows(table, file, found)
    answers = [
        Answer(row.image_id, row.label, row.who or who or person(root), now(), row.why or why, found.of(row.image_id))
        for row in rows.itertuples()
        if not _given_before(row, found, row.who or who or person(root))
    ]
    if answers:
        append_answers(paths.labels, answers)
    kinds = Counter(_kind(answer) for answer in answers)
    unchanged, later = len(rows) - len(answers), len(table) - len(rows)
    return {
        **{kind: kinds[kind] for kind in ("new", "changed", "confirmed", "discarded", "unsure")},
        "given_before": unchanged,
        "without_a_label": later,
        **({"published": publish_labels(root).sentence()} if commit else {"taken_over": take_over_labelled(root)}),
    }


def person(root: Path) -> str:
    """Who gives answers here: git's `user.name`, or the account's."""
    done = try_git(root, "config", "user.name")
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _kind(answer: Answer) -> str:
    if answer.label in (DISCARD, UNSURE):
        return "discarded" if answer.label == DISCARD else "unsure"
    return "new" if not answer.replaced else "confirmed" if answer.replaced == answer.label else "changed"


def _given_before(row: Any, found: Labels, who: str) -> bool:
    standing = found.standing.get(row.image_id)
    if standing is None:
        return False
    if row.label == UNSURE:
        return who in standing.unsure
    return standing.decided is not None and standing.decided.label == row.label and standing.decided.who == who


def _rows(table: pd.DataFrame, file: Path, found: Labels) -> pd.DataFrame:
    """Columns `image_id`, `label`, `who`, `why`, of the rows with a label."""
    if "label" not in table or not {"image_id", "path"} & set(table):
        raise DataError(
            f"{file} lacks a column",
            got=listed(table.columns),
            allowed="image_id or path, and label; optionally who, why",
            todo="rename or add the column; `graft label next 20 --output FILE` writes such a table",
        )
    cells = table["label"].map(text)
    kept = table[cells.notna()] if found.task != "multilabel" else table[table["label"].notna()]
    labels = _labels(kept, file, found.task)
    ids = _ids(kept, found)
    unknown = [(int(row) + 1, name) for row, name, known in _named(kept, ids) if not known]
    refuse_rows(
        file,
        unknown,
        "about images that this project does not have",
        allowed="images of data/raw and of the pool",
        todo="correct the rows, or `graft label add` the images",
    )
    return pd.DataFrame({
        "image_id": ids,
        "label": labels,
        "who": _column(kept, "who"),
        "why": _column(kept, "why"),
    })  # fmt: skip


def _column(table: pd.DataFrame, name: str) -> list[str]:
    return [text(cell) or "" for cell in table[name]] if name in table else [""] * len(table)


def _labels(kept: pd.DataFrame, file: Path, task: Task) -> list[str]:
    """As the manifest has them; special ones as they are."""
    written = [text(cell) or "" for cell in kept["label"]]
    plain = [label for label in dict.fromkeys(written) if label not in SPECIAL]
    read = read_labels(pd.DataFrame({"label": plain}, dtype=object), file, task) if plain else []
    as_read = dict(zip(plain, read))
    return [label if label in SPECIAL else str(as_read[label]) for label in written]


def _ids(kept: pd.DataFrame, found: Labels) -> list[str]:
    """The md5 of the image that each row is about; empty for an unknown one."""
    if "image_id" in kept:
        return [image_id if found.known(image_id) else "" for image_id in kept["image_id"].map(text).fillna("")]
    of_path = {**dict(zip(found.pool["name"], found.pool["image_id"]))}
    of_path |= {f"data/pool/{path}": image_id for path, image_id in zip(found.pool["path"], found.pool["image_id"])}
    of_path |= {f"data/raw/{path}": image_id for path, image_id in zip(found.data["path"], found.data["image_id"])}
    of_path |= dict(zip(found.data["path"], found.data["image_id"]))
    return [
        next((of_path[name] for name in spellings(cell) if name in of_path), "") if text(cell) else ""
        for cell in kept["path"]
    ]


def _named(kept: pd.DataFrame, ids: list[str]) -> list[tuple[int, str, bool]]:
    names = kept["image_id" if "image_id" in kept else "path"]
    return [(int(row), text(name) or "nothing", bool(known)) for row, name, known in zip(kept.index, names, ids)]
