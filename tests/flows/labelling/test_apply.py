import pandas as pd
import pytest

from graft.flows.ingest.converting import shard_images
from graft.flows.labelling.apply import apply_labels
from graft.flows.labelling.current import read_labels_now
from graft.flows.labelling.pool import read_pool
from graft.flows.labelling.take_over import take_over_labelled
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images.shard_writer import shard_name
from graft.tasks.preprocess.label_history import Answer, append_answers, now, read_answers


def write(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_labelled_images_of_the_pool_join_their_class(pooled, tmp_path, colour_of):
    index = read_pool(pooled.root)
    table = write(
        tmp_path / "a.csv",
        [{"image_id": r.image_id, "label": colour_of(r.name), "why": "margin"} for r in index.head(5).itertuples()],
    )
    found = apply_labels(pooled.root, table, "ann")
    assert (found["new"], found["taken_over"]) == (5, 5)
    labels = read_labels_now(pooled.root)
    assert len(labels.pool) == 31
    for row in index.head(5).itertuples():
        file = pooled.root / "data" / "raw" / colour_of(row.name) / row.path.split("/")[1]
        assert file.is_file()
        assert labels.of(row.image_id) == colour_of(row.name)
    assert {(one.who, one.why, one.replaced) for one in read_answers(pooled.root / "data" / "labels.csv")} == {
        ("ann", "margin", "")
    }


def test_a_label_of_an_image_of_the_data_changes_no_file(pooled, tmp_path):
    before = (pooled.root / "data" / "raw.dvc").read_text()
    data = read_labels_now(pooled.root).data
    first = data[data["label"] == "blue"].iloc[0]
    table = write(tmp_path / "a.csv", [{"path": f"data/raw/{first.path}", "label": "red"}])
    found = apply_labels(pooled.root, table, "ann")
    assert (found["changed"], found["taken_over"]) == (1, 0)
    assert (pooled.root / "data" / "raw.dvc").read_text() == before
    assert read_labels_now(pooled.root).of(first.image_id) == "red"
    assert apply_labels(pooled.root, table, "ann")["given_before"] == 1


def test_rows_without_a_label_are_left_for_later_and_discards_stay_out(pooled, tmp_path):
    index = read_pool(pooled.root)
    rows = [
        {"image_id": image_id, "label": label}
        for image_id, label in zip(index["image_id"], ["", "!discard", "!unsure"])
    ]
    found = apply_labels(pooled.root, write(tmp_path / "a.csv", rows))
    assert (found["without_a_label"], found["discarded"], found["unsure"], found["taken_over"]) == (1, 1, 1, 0)
    assert len(read_labels_now(pooled.root).waiting) == 34


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_id": "0" * 32, "label": "red"}, "row 1: 00000000"),
        ({"path": "nowhere.png", "label": "red"}, "row 1: nowhere.png"),
        ({"file_name": "a.png"}, "lacks a column"),
    ],
)
def test_a_bad_table_changes_nothing(pooled, tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        apply_labels(pooled.root, write(tmp_path / "a.csv", [row]))
    assert read_answers(pooled.root / "data" / "labels.csv") == []


def test_taking_over_goes_on_after_a_kill(pooled, colour_of):
    """The answer is on the disk, and nothing else. Images in shards get another shard."""
    shard_images(pooled.root)
    row = next(read_pool(pooled.root).itertuples())
    append_answers(pooled.root / "data" / "labels.csv", [Answer(row.image_id, colour_of(row.name), "ann", now())])
    assert take_over_labelled(pooled.root) == 1
    assert take_over_labelled(pooled.root) == 0
    assert len(read_pool(pooled.root)) == 35
    assert sorted(file.name for file in (pooled.root / "data" / "raw").glob("*.tar")) == [shard_name(0), shard_name(1)]


def test_a_class_with_a_slash_gets_a_folder_and_keeps_its_name(pooled):
    row = next(read_pool(pooled.root).itertuples())
    append_answers(pooled.root / "data" / "labels.csv", [Answer(row.image_id, "rust/blue", "ann", now())])
    take_over_labelled(pooled.root)
    assert (pooled.root / "data" / "raw" / "rust_blue").is_dir()
    assert read_labels_now(pooled.root).of(row.image_id) == "rust/blue"
