import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import md5
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.preprocess.label_history import DISCARD, UNSURE, Answer, append_answers, now
from graft.tasks.preprocess.relabel import relabel, to_learn_from


@pytest.fixture
def project(tmp_path, fill_classes):
    paths = Paths(tmp_path)
    fill_classes(paths.raw)
    return paths


def say(paths, name, label, **more):
    append_answers(paths.labels, [Answer(md5(paths.raw / name), label, "ann", now(), **more)])


def test_a_given_label_replaces_that_of_the_folder_and_moves_no_file(project, run_stage):
    say(project, "red/000.png", "blue", replaced="red")
    say(project, "red/001.png", "violet", replaced="red")
    say(project, "red/002.png", UNSURE)
    say(project, "red/003.png", DISCARD, replaced="red")
    record = run_stage("preprocess", project, max_rejected=0.0)
    labels = read_manifest(project.manifest).set_index("path")["label"]
    assert [labels[f"red/00{n}.png"] for n in range(3)] == ["blue", "violet", "red"]
    assert "red/003.png" not in labels
    rejected = pd.read_parquet(project.manifest / "rejected.parquet")
    assert rejected["reason"].tolist() == ["discarded by ann"]
    assert (project.raw / "red/000.png").is_file()
    assert record.metrics["rejected"] == 1


def test_an_image_that_was_chosen_to_learn_from_never_tests(project, run_stage):
    run_stage("preprocess", project)
    before = read_manifest(project.manifest).set_index("path")
    test = before.index[before["split"] == "test"]
    for name, why in zip(test, ("margin", "random")):
        say(project, name, before.loc[name, "label"], why=why)
    run_stage("preprocess", project)
    after = read_manifest(project.manifest).set_index("path")["split"]
    assert after[test[0]] == "train"
    assert (after[test[1:]] == "test").all()
    assert (after.drop(test[0]) == before["split"].drop(test[0])).all()


def test_images_of_a_group_stay_together():
    images = pd.DataFrame({"group": ["a", "a", "b", None], "chosen": [True, False, True, True]})
    assert to_learn_from(images).tolist() == [False, False, True, True]


def test_a_label_that_is_not_of_the_task_is_refused(tmp_path):
    path = tmp_path / "labels.csv"
    files = pd.DataFrame({"image_id": ["0" * 32], "label": ["1.5"]})
    append_answers(path, [Answer("0" * 32, "tall", "ann", now())])
    with pytest.raises(DataError, match=r"not of `head\.task: regression`"):
        relabel(files, path, "regression")


def test_answers_about_images_that_are_not_there_change_nothing(tmp_path):
    path = tmp_path / "labels.csv"
    files = pd.DataFrame({"image_id": ["0" * 32], "label": ["cat"]})
    append_answers(path, [Answer("1" * 32, "dog", "ann", now())])
    found = relabel(files, path, "classification")
    assert found["label"].tolist() == ["cat"]
    assert found["discarded"].tolist() == [""]
