import json

import pandas as pd
import pytest

from graft.flows.labelling.apply import apply_labels
from graft.flows.labelling.current import read_labels_now
from graft.flows.labelling.exchange import export_labels, read_answers_file
from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.label_history import Answer, append_answers, now


@pytest.mark.parametrize("form", ["label-studio", "coco", "csv"])
def test_what_is_exported_can_be_filled_in_and_taken_back(pooled, tmp_path, form, colour_of):
    before = read_labels_now(pooled.root)
    first = before.data.iloc[0]
    append_answers(
        pooled.root / "data" / "labels.csv", [Answer(first.image_id, "green", "ann", now(), "", first.label)]
    )
    file = tmp_path / ("labels.csv" if form == "csv" else "labels.json")
    counts = export_labels(pooled.root, file, form)
    assert counts == {"images": 78, "with_a_label": 42}
    rows = read_answers_file(file, "classification")
    labels = dict(zip(rows["image_id"], rows["label"]))
    assert labels[first.image_id] == "green"
    filled = {row.image_id: colour_of(row.name) for row in before.pool.head(3).itertuples()}
    if form == "csv":
        table = pd.read_csv(file, dtype=str)
        table["label"] = [filled.get(one, label) for one, label in zip(table["image_id"], table["label"])]
        table.to_csv(file, index=False)
    else:
        content = json.loads(file.read_text())
        if form == "coco":
            numbers = {each["graft_image_id"]: each["id"] for each in content["images"]}
            codes = {each["name"]: each["id"] for each in content["categories"]}
            content["annotations"] += [
                {"id": 1000, "image_id": numbers[one], "category_id": codes[label]} for one, label in filled.items()
            ]
        else:
            for task in content:
                if task["data"]["image_id"] in filled:
                    value = {"choices": [filled[task["data"]["image_id"]]]}
                    result = [{"from_name": "label", "to_name": "image", "type": "choices", "value": value}]
                    task["annotations"] = [{"result": result, "completed_by": {"email": "bob@example.org"}}]
        file.write_text(json.dumps(content))
    found = apply_labels(pooled.root, file, "ann")
    assert (found["new"], found["taken_over"], found["changed"]) == (3, 3, 0)
    after = read_labels_now(pooled.root)
    assert {one: after.of(one) for one in filled} == filled
    if form == "label-studio":
        assert {after.standing[one].decided.who for one in filled} == {"bob@example.org"}


def test_label_studios_short_form_and_local_files_are_understood(tmp_path):
    file = tmp_path / "min.json"
    file.write_text(json.dumps([{"image": "/data/local-files/?d=data/raw/red/000.png", "choice": "blue", "id": 1}]))
    rows = read_answers_file(file, "classification")
    assert rows[["path", "label"]].to_numpy().tolist() == [["data/raw/red/000.png", "blue"]]


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[1]", '[{"data": {}}]'])
def test_other_json_is_refused_with_the_forms_that_are_known(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(DataError, match="Label Studio"):
        read_answers_file(file, "classification")


def test_several_categories_need_the_task_multilabel(tmp_path):
    file = tmp_path / "a.json"
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 1, "category_id": 2}],
    }
    file.write_text(json.dumps(content))
    assert read_answers_file(file, "multilabel")["label"].tolist() == ["cat|dog"]
    with pytest.raises(DataError, match="several categories"):
        read_answers_file(file, "classification")
