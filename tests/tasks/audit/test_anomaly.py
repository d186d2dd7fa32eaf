import numpy as np
import pandas as pd
import pytest

from graft.tasks.audit.anomaly import deviations, judge_good_images, nearest_good
from graft.tasks.audit.params import AuditParams
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import write_table


@pytest.fixture
def judged(pack_of, tmp_path):
    """judged(scores of good images, scores of defects in validation) -> what is found; each image is its own unit."""

    def judge(good_N, defect_M=(), missing=0):
        n, m = len(good_N), len(defect_M)
        rng = np.random.default_rng(0)
        features = np.concatenate([rng.normal(3, 1, (n, 6)), rng.normal(-3, 1, (m, 6))])
        split = ["train" if i % 3 else "val" for i in range(n)] + ["val"] * m
        pack = pack_of(features, ["good"] * n + ["hole"] * m, split=split, task="anomaly")
        paths = Paths(tmp_path)
        paths.head.mkdir(parents=True)
        table = pack.index[["image_id", "label"]].assign(fold=0, score=[*good_N, *defect_M])
        write_table(table.iloc[missing:], paths.head / "validation.parquet")
        return judge_good_images(pack, np.arange(n + m), AuditParams(curve_seeds=1), paths)

    return judge


def usual(n=90, seed=0):
    return np.exp(np.random.default_rng(seed).normal(0, 0.2, n))


def test_good_images_with_a_defect_are_suspected_and_come_first(judged):
    score_N = usual()
    score_N[[7, 40]] = 9.0, 30.0
    found = judged(score_N)
    assert list(found.label_issues["path"]) == ["0040.png", "0007.png"]
    assert list(found.scores["path"][:2]) == ["0040.png", "0007.png"]
    assert (found.doubted, found.judged, found.unjudged) == (2, 90, 0)
    assert set(found.label_issues["suggested"]) == {"a defect"}


@pytest.mark.parametrize(
    "score_N", [usual(), np.ones(30), np.zeros(30), usual(1)], ids=["usual", "equal", "zero", "one"]
)
def test_usual_scores_are_not_suspected(judged, score_N):
    found = judged(score_N)
    assert found.doubted == 0
    assert len(found.scores) == len(score_N)


def test_normal_logarithms_have_deviations_of_about_one():
    assert np.std(deviations(usual(20_000))) == pytest.approx(1.0, abs=0.03)


def test_of_skewed_scores_about_as_many_are_suspected_as_by_chance(judged):
    found = judged(np.exp(np.random.default_rng(3).exponential(0.2, 4000)))
    assert found.doubted == pytest.approx(found.by_chance, rel=0.4)


def test_good_images_without_a_score_are_counted(judged):
    assert judged(usual(), missing=4).unjudged == 4


def test_defects_in_validation_give_a_metric_and_a_learning_curve(judged):
    found = judged(usual(), [8.0] * 20)
    value, low, high = found.out_of_fold
    assert value == 1.0
    assert 0.8 < low <= high <= 1.0
    assert "hole" not in set(found.scores["label"])
    assert found.curve.sizes["value"].iloc[-1] == 1.0


def test_without_defects_in_validation_the_curve_says_so(judged):
    found = judged(usual())
    assert found.out_of_fold is None
    assert "no defects" in found.curve.doubling["reason"]


def test_without_scores_the_stage_head_is_named(pack_of, tmp_path):
    pack = pack_of(np.eye(4), ["good"] * 4, task="anomaly")
    with pytest.raises(DataError, match="in the stage head"):
        judge_good_images(pack, np.arange(4), AuditParams(), Paths(tmp_path))


def test_the_distance_is_to_the_nearest_good_image(pack_of):
    pack = pack_of([[1, 0], [0, 2], [3, 0], [1, 1]], ["good", "good", "good", "hole"], task="anomaly")
    far_V1 = nearest_good(pack, np.array([0, 1]), np.array([2, 3]), 0)
    np.testing.assert_allclose(far_V1, [[0], [1 - 2**-0.5]], atol=1e-6)


def test_the_stage_shows_the_worst_good_images(paths, run_stage):
    """Blue images that are not for training are defects, and one other image scores as they do."""
    file = paths.features / "index.parquet"
    index = pd.read_parquet(file)
    is_defect = (index["label"] == "blue") & (index["split"] != "train")
    index = index.assign(label=np.where(is_defect, "blue", "good"), task="anomaly")
    write_table(index.astype({"label": "string", "task": "string"}), file)
    rng = np.random.default_rng(0)
    learned = index[index["split"] != "test"]
    score = np.where(learned["label"] == "good", np.exp(rng.normal(0, 0.1, len(learned))), 9.0)
    worst = np.flatnonzero(learned["label"] == "good")[0]
    score[worst] = 9.0
    write_table(learned[["image_id", "label"]].assign(fold=0, score=score), paths.head / "validation.parquet")

    record = run_stage("audit", paths)

    assert record.metrics["label_issues"] == 1
    assert "confusable" not in record.metrics
    page = (paths.audit / "index.html").read_text(encoding="utf-8")
    assert "Good images that may have a defect" in page
    assert "Confusable classes" not in page
    assert (paths.audit / "scores.png").is_file()
    assert pd.read_parquet(paths.audit / "scores.parquet")["path"].iloc[0] == learned["path"].iloc[worst]
