"""The labels that people gave (data/labels.csv) over those of folders and tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..common.core.errors import DataError
from ..common.data.task import Task
from .label_history import SPECIAL, Standing, read_answers, standings
from .labels import read_labels


def relabel(files: pd.DataFrame, path: Path, task: Task) -> pd.DataFrame:
    """The files with the labels that were given since, and two more columns: `discarded`, by whom (empty for files that
    are kept), and `chosen`, whether a strategy chose the image to learn from.

    Args:
        files: columns `image_id`, `label`.
        path: data/labels.csv.

    Raises:
        DataError: the table cannot be read, or a label that counts is not one of this task.
    """
    found = {image_id: one for image_id, one in standings(read_answers(path)).items() if one.decided is not None}
    own = [found.get(image_id) for image_id in files["image_id"]]
    labels = _checked({one.label for one in own if one and one.label is not None}, path, task)
    given = [old if one is None or one.label is None else labels[one.label] for one, old in zip(own, files["label"])]
    return files.assign(
        label=pd.Series(given, files.index, dtype=object),
        discarded=[_by(one) for one in own],
        chosen=[one is not None and one.chosen for one in own],
    )


def to_learn_from(images: pd.DataFrame) -> pd.Series:
    """(N,) which images are training images because they were chosen to learn from. Images of a group stay together, so
    a group is only if all its images were chosen.

    Args:
        images: columns `group`, `chosen`.
    """
    alone = pd.Series(images.index, images.index).astype(str).radd("\0")
    groups = images["group"].where(images["group"].notna(), alone)
    return images["chosen"].astype(bool).groupby(groups).transform("all").astype(bool)


def _by(one: Standing | None) -> str:
    return one.decided.who or "nobody named" if one is not None and one.decided is not None and one.discarded else ""


def _checked(labels: set[str], path: Path, task: Task) -> dict[str, str]:
    """Each label as the manifest has it."""
    written = sorted(labels)
    try:
        read = read_labels(pd.DataFrame({"label": written}, dtype=object), path, task) if written else []
    except DataError as error:
        raise DataError(
            f"{path} has labels that are not of `head.task: {task}`",
            got=error.got,
            allowed=error.allowed or f"labels of this task, or {', '.join(SPECIAL)}",
            todo="append a row with the right label; `graft label` does",
        ) from error
    return dict(zip(written, read))
