"""Whether what a person typed is a label of the task."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.task import Task
from graft.tasks.preprocess.label_history import DISCARD, UNSURE
from graft.tasks.preprocess.labels import read_labels

from ...serving.server.refusal import Refusal


def checked(label: str, task: Task) -> str:
    """The label as the manifest has it.

    Raises:
        Refusal: it is none of this task.
    """
    if label in (DISCARD, UNSURE):
        return label
    if label.startswith("!"):
        raise Refusal(400, "a label must not begin with an exclamation mark", "malformed")
    try:
        read = read_labels(pd.DataFrame({"label": [label]}, dtype=object), Path("the answer"), task)[0]
    except DataError as error:
        raise Refusal(400, f"{error.what}: {error.got}", "malformed") from None
    if read is None or (read == "" and task != "multilabel"):
        raise Refusal(400, "a label is needed", "malformed")
    return str(read)
