"""Labels to and from other tools: Label Studio's JSON, COCO's with one category an image, and CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import whole_file, write_json
from graft.tasks.common.data.task import BETWEEN, Task
from graft.tasks.preprocess.label_history import Answer
from graft.tasks.preprocess.tables import load_table

from .current import Labels, read_labels_now

Format = Literal["label-studio", "coco", "csv"]

SUFFIX = ".json"

FORMS = "a list of Label Studio's tasks (JSON or JSON-MIN), or COCO's images, categories and annotations"


def export_labels(root: Path, file: Path, form: Format) -> dict[str, int]:
    """Writes all images of data/raw and of the pool, with the labels that they have.

    Returns:
        `images`, and how many of them have a label.

    Raises:
        DataError: COCO is asked for numbers.
    """
    found = read_labels_now(root)
    rows = list(_images(found))
    if form == "csv":
        with whole_file(file) as part:
            pd.DataFrame(rows).to_csv(part, index=False)
    else:
        write_json(file, _studio(rows, found) if form == "label-studio" else _coco(rows, found.task))
    return {"images": len(rows), "with_a_label": sum(row["label"] is not None for row in rows)}


def _images(found: Labels) -> Iterator[dict[str, Any]]:
    """`image_id`, `path` below the project, and `label`: None without one, empty for none of several classes."""
    for table, folder in ((found.data, "data/raw"), (found.pool, "data/pool")):
        for row in table.itertuples():
            image_id = str(row.image_id)
            given = found.standing.get(image_id)
            known = (given is not None and given.label is not None) or (folder == "data/raw" and row.label is not None)
            discarded = given is not None and given.discarded
            label = found.of(image_id) if known and not discarded else None
            yield {"image_id": image_id, "path": f"{folder}/{row.path}", "label": label}


def _studio(rows: list[dict[str, Any]], found: Labels) -> list[dict[str, Any]]:
    tasks = []
    for number, row in enumerate(rows, 1):
        given = found.standing.get(row["image_id"])
        decided = given.decided if given is not None else None
        annotation = [] if row["label"] is None else [_annotation(row["label"], found.task, decided)]
        data = {"image": row["path"], "image_id": row["image_id"]}
        tasks.append({"id": number, "data": data, "annotations": annotation, "predictions": []})
    return tasks


def _annotation(label: str, task: Task, decided: Answer | None) -> dict[str, Any]:
    if task == "regression":
        kind, value = "number", {"number": float(label)}
    else:
        kind, value = "choices", {"choices": _names(label, task)}  # type: ignore[dict-item]
    result = [{"from_name": "label", "to_name": "image", "type": kind, "value": value}]
    about = {} if decided is None else {"completed_by": {"email": decided.who}, "created_at": decided.when}
    return {"result": result, "was_cancelled": False, **about}


def _names(label: str, task: Task) -> list[str]:
    return [name for name in label.split(BETWEEN) if name] if task == "multilabel" else [label]


def _coco(rows: list[dict[str, Any]], task: Task) -> dict[str, Any]:
    if task == "regression":
        raise DataError(
            "COCO has no form for numbers", got="head.task: regression", allowed="label-studio, csv", todo="choose one"
        )
    labelled = [(number, row["label"]) for number, row in enumerate(rows, 1) if row["label"] is not None]
    marks = [(number, name) for number, label in labelled for name in _names(label, task)]
    code = {name: place for place, name in enumerate(sorted({name for _, name in marks}), 1)}
    return {
        "images": [
            {"id": number, "file_name": row["path"], "graft_image_id": row["image_id"]}
            for number, row in enumerate(rows, 1)
        ],
        "categories": [{"id": place, "name": name} for name, place in code.items()],
        "annotations": [
            {"id": place, "image_id": number, "category_id": code[name]}
            for place, (number, name) in enumerate(marks, 1)
        ],
    }


def read_answers_file(file: Path, task: Task) -> pd.DataFrame:
    """The rows of a table or of another tool's JSON: `image_id` or `path`, `label`, and perhaps `who`.

    Raises:
        DataError: it cannot be read, or has none of these forms.
    """
    if file.suffix.lower() != SUFFIX:
        return load_table(file).rows
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON", got=error, allowed=FORMS) from error
    try:
        rows = _of_coco(content, task) if isinstance(content, dict) else [_of_task(one) for one in content]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DataError(
            f"{file} has another form",
            got=f"{type(error).__name__}: {error}",
            allowed=FORMS,
            todo="export as JSON, with the images that `graft label export` named",
        ) from error
    table = pd.DataFrame(rows, columns=["image_id", "path", "label", "who"], dtype=object)
    has_ids = len(table) > 0 and table["image_id"].notna().all()
    return table.drop(columns="path" if has_ids else "image_id")


def _of_task(one: dict[str, Any]) -> dict[str, Any]:
    """Of Label Studio; a task that was skipped, or is not done, has no label."""
    if "data" not in one:  # JSON-MIN
        chosen = one.get("label", one.get("choice"))
        return _row(one.get("image_id"), one["image"], chosen, one.get("annotator"))
    data, done = one["data"], [each for each in one.get("annotations", []) if not each.get("was_cancelled")]
    if not done:
        return _row(data.get("image_id"), data["image"], None, None)
    results = [each["value"] for each in done[-1]["result"]]
    chosen = next((value.get("choices", value.get("number")) for value in results if value), [])
    by = done[-1].get("completed_by")
    return _row(data.get("image_id"), data["image"], chosen, by.get("email") if isinstance(by, dict) else by)


def _row(image_id: Any, path: str, chosen: Any, who: Any) -> dict[str, Any]:
    if isinstance(chosen, dict):
        chosen = chosen.get("choices")
    label = BETWEEN.join(sorted(chosen)) if isinstance(chosen, list) else chosen
    return {"image_id": image_id, "path": path.rpartition("?d=")[2], "label": label, "who": who}


def _of_coco(content: dict[str, Any], task: Task) -> list[dict[str, Any]]:
    """Images without an annotation have no label."""
    names = {each["id"]: each["name"] for each in content["categories"]}
    of: dict[Any, list[str]] = {each["id"]: [] for each in content["images"]}
    for each in content["annotations"]:
        of[each["image_id"]].append(names[each["category_id"]])
    rows = []
    for image in content["images"]:
        found = sorted(set(of[image["id"]]))
        if len(found) > 1 and task != "multilabel":
            raise ValueError(f"{image['file_name']} has several categories: {', '.join(found)}")
        rows.append(_row(image.get("graft_image_id"), image["file_name"], found or None, None))
    return rows
