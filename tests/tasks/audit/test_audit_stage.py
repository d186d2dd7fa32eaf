import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.audit.stage import TABLES
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import md5, read_json, write_json
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table


def table(paths, name):
    return pd.read_parquet(paths.audit / f"{name}.parquet")


def relabel(paths, change, task="classification"):
    """Gives the pack other labels: change(label, number of the image) -> label."""
    file = paths.features / "index.parquet"
    index = pd.read_parquet(file)
    labels = [change(label, n) for n, label in enumerate(index["label"])]
    write_table(index.assign(label=pd.array(labels, "string"), task=task), file)


@pytest.fixture
def mislabelled(paths):
    """The last training image of blue is called red."""
    pack = read_feature_set(paths.features)
    last = [n for n in pack.rows("train") if pack.index["label"].iloc[n] == "blue"][-1]
    relabel(paths, lambda label, n: "red" if n == last else label)
    return paths, pack.index["path"].iloc[last]


@pytest.fixture
def leaking(paths, run_stage):
    """A test image of blue is a training image of blue, saved again."""
    pack = read_feature_set(paths.features)
    blue = pack.index[pack.index["label"] == "blue"]
    train, test = blue[blue["split"] == "train"]["path"].iloc[0], blue[blue["split"] == "test"]["path"].iloc[0]
    shutil.rmtree(paths.cache / "thumbnails")
    with Image.open(paths.raw / train) as image:
        image.save(paths.raw / test, "PNG", compress_level=1)
    index = pack.index.assign(image_id=pack.index["image_id"].where(pack.index["path"] != test, md5(paths.raw / test)))
    index.to_parquet(paths.features / "index.parquet", index=False)
    return paths, train, test


def test_the_folder_has_a_page_tables_pictures_and_the_verdicts(finished_paths, names_in):
    names = names_in(finished_paths.audit)
    assert {f"{name}.parquet" for name in TABLES} <= names
    assert {"index.html", "audit.json", "map.png", "leaked.parquet", "map.parquet", "curve.parquet"} <= names


def test_images_of_clear_colours_have_nothing_to_find(finished_paths):
    checks = read_json(finished_paths.audit / "audit.json")["checks"]
    assert list(checks) == ["label_issues", "leaks", "conflicts", "outliers", "confusable"]
    assert {name: check["found"] for name, check in checks.items() if name != "outliers"} == dict.fromkeys(
        ("label_issues", "leaks", "conflicts", "confusable"), 0
    )


def test_a_wrong_label_is_suspected_and_shown(mislabelled, run_stage):
    paths, wrong = mislabelled
    run_stage("audit", paths)
    (suspect,) = table(paths, "label_issues").itertuples()
    assert (suspect.path, suspect.label, suspect.suggested) == (wrong, "red", "blue")
    assert (paths.audit / "label_issues.png").is_file()
    assert wrong in (paths.audit / "index.html").read_text(encoding="utf-8")


def test_a_training_image_saved_again_in_the_test_is_a_leak(leaking, run_stage):
    paths, train, test = leaking
    record = run_stage("audit", paths)
    (leak,) = table(paths, "leaks").itertuples()
    assert (leak.path, leak.split, leak.other_path, leak.other_split) == (train, "train", test, "test")
    assert record.metrics["leaked"] == {"val": 0, "test": 1}
    assert (paths.audit / "leaks.png").is_file()


def test_a_strange_image_is_an_outlier(paths, run_stage):
    file = paths.features / "features.npy"
    features_ND = np.load(file)
    features_ND[5] = -features_ND[5]
    np.save(file, features_ND)
    run_stage("audit", paths)
    assert read_feature_set(paths.features).index["path"].iloc[5] == table(paths, "outliers")["path"].iloc[0]


def test_warnings_are_said_and_stand_in_the_record_and_the_verdicts(mislabelled, run_stage, capsys):
    paths, _ = mislabelled
    record = run_stage("audit", paths, max_label_issues=0.0)
    assert re.search(r"audit: 1 of \d+ labels are suspected", capsys.readouterr().err)
    assert re.match(r"warn: 1 of \d+ labels are suspected", record.facts["label_issues"])
    assert read_json(paths.audit / "audit.json")["checks"]["label_issues"]["state"] == "warn"


def test_what_is_within_the_limit_is_not_said(mislabelled, run_stage, capsys):
    paths, _ = mislabelled
    run_stage("audit", paths, max_label_issues=1.0, on_outliers="ignore")
    assert "suspected" not in capsys.readouterr().err


def test_a_failing_audit_has_written_what_there_is_to_look_at_and_its_record_says_why(mislabelled, run_stage):
    paths, wrong = mislabelled
    shutil.rmtree(paths.audit)
    record = run_stage("audit", paths, max_label_issues=0.0, on_label_issues="fail")
    assert isinstance(record.failure, DataError)
    said = r"audit.max_label_issues(.|\n)*1 of \d+ labels are suspected(.|\n)*data/audit/index.html"
    assert re.search(said, str(record.failure))
    assert record.metrics["label_issues"] == 1
    assert paths.audit / "label_issues.parquet" in record.files
    assert list(table(paths, "label_issues")["path"]) == [wrong]
    assert wrong in (paths.audit / "index.html").read_text(encoding="utf-8")


def test_labels_of_test_images_change_nothing_that_is_judged(paths, run_stage):
    run_stage("audit", paths)
    before = {name: table(paths, name) for name in ("label_issues", "conflicts", "confusable")}
    test = set(read_feature_set(paths.features).rows("test"))
    relabel(paths, lambda label, n: {"red": "blue", "blue": "green", "green": "red"}[label] if n in test else label)
    run_stage("audit", paths)
    assert all(before[name].equals(table(paths, name)) for name in before)


def test_a_second_run_gives_the_same_bytes(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.audit), tree_bytes(paths.plots("audit"))
    run_stage("audit", paths)
    assert (tree_bytes(paths.audit), tree_bytes(paths.plots("audit"))) == before


@pytest.mark.parametrize(
    ("facts", "taken"),
    [
        ({"kind": "linear", "estimator": "logistic", "l2": 0.125}, 0.125),
        ({"kind": "linear", "estimator": "ridge", "l2": 0.125}, 0.01),
        ({"kind": "knn", "estimator": "knn", "k": 5}, 0.01),
        ({"kind": "mlp", "estimator": "mlp"}, 0.01),
    ],
    ids=str,
)
def test_the_strength_is_the_heads_where_it_has_one(paths, run_stage, facts, taken):
    write_json(paths.head / "head.json", facts)
    run_stage("audit", paths)
    assert read_json(paths.audit / "audit.json")["l2"] == taken


def test_views_are_learned_from_and_never_judged(paths, run_stage):
    run_stage("features", paths, views=1)
    run_stage("audit", paths)
    assert len(table(paths, "map")) == len(read_feature_set(paths.features).index)


def test_several_classes_an_image_are_audited(paths, run_stage):
    relabel(paths, lambda label, n: {"red": "red|warm", "blue": "blue", "green": ""}[label], "multilabel")
    metrics = run_stage("audit", paths).metrics
    assert set(metrics) >= {"label_issues", "leaks", "conflicts", "outliers", "confusable"}
    assert metrics["out_of_fold_mean_average_precision"] > 0.9
    assert (paths.audit / "map.png").is_file()


def test_numbers_are_audited_without_questions_about_classes(paths, run_stage):
    relabel(paths, lambda label, n: str({"red": 1.0, "blue": 5.0, "green": 9.0}[label] + n % 3 / 10), "regression")
    metrics = run_stage("audit", paths).metrics
    assert "confusable" not in metrics
    assert metrics["out_of_fold_r2"] > 0.9
    page = (paths.audit / "index.html").read_text(encoding="utf-8")
    assert "Confusable classes" not in page


def test_the_verdicts_are_plain_json(finished_paths):
    content = (finished_paths.audit / "audit.json").read_text(encoding="utf-8")
    assert "NaN" not in content
    assert json.loads(content)["curve"]["sizes"] == []  # four validation images


def test_the_plots_can_be_drawn_from_tables(finished_paths):
    curve = pd.read_csv(finished_paths.plots("audit") / "curve.csv")
    assert list(curve.columns) == ["share", "images", "value", "low", "high"]
    assert set(pd.read_csv(finished_paths.plots("audit") / "map.csv")) >= {"x", "y", "label"}


def test_auditing_imports_no_torch(paths, repository):
    program = (
        "import sys, pathlib\n"
        "from graft.tasks.common.core.paths import Paths\n"
        "from graft.tasks.audit.params import AuditParams\n"
        "from graft.tasks.audit.stage import run\n"
        "run(AuditParams(folds=2, curve_seeds=1), Paths(pathlib.Path(sys.argv[1])))\n"
        "sys.exit('torch' in sys.modules or 'openvino' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(paths.root)], cwd=repository, check=True)


def test_the_head_says_what_trained_it(finished_paths):
    assert read_json(finished_paths.head / "head.json")["estimator"] == "logistic"


def test_where_nothing_can_be_held_out_the_page_says_so_and_the_json_is_valid(paths, run_stage):
    file = paths.features / "index.parquet"
    index = pd.read_parquet(file)
    write_table(index.assign(group=pd.array(index["label"], "string")), file)
    run_stage("audit", paths)
    content = (paths.audit / "audit.json").read_text(encoding="utf-8")
    told = json.loads(content, parse_constant=pytest.fail)
    assert told["checks"]["label_issues"]["of"] == 0
    assert "out_of_fold_accuracy" not in told
    assert told["unjudged"] == len(read_feature_set(paths.features).rows("train", "val"))
    assert f"{told['unjudged']} images could not be held out" in (paths.audit / "index.html").read_text("utf-8")


def test_enough_validation_images_are_asked_for_a_curve(paths, run_stage):
    file = paths.features / "index.parquet"
    index = pd.read_parquet(file)
    write_table(index.assign(split=["val" if n % 2 else split for n, split in enumerate(index["split"])]), file)
    run_stage("audit", paths)
    assert read_json(paths.audit / "audit.json")["curve"]["sizes"][-1]["share"] == 1
    assert (paths.audit / "curve.png").is_file()
    assert "training images" in (paths.audit / "index.html").read_text(encoding="utf-8")


def test_without_validation_images_there_is_an_audit_without_a_curve(paths, run_stage):
    file = paths.features / "index.parquet"
    index = pd.read_parquet(file)
    write_table(index.assign(split=index["split"].replace("val", "train")), file)
    run_stage("audit", paths)
    told = read_json(paths.audit / "audit.json")["curve"]
    assert told["sizes"] == []
    assert "only 0 validation images" in told["doubling"]["reason"]
    assert not (paths.audit / "curve.png").exists()
    assert "only 0 validation images" in (paths.audit / "index.html").read_text(encoding="utf-8")
