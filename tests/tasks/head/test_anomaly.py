"""Heads that learn good images alone. Maps are drawn: 4 x 4 patches of 6 channels; one is about 0 if good."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError, ParamsError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.load import load_anomaly_head
from graft.tasks.head import anomaly
from graft.tasks.head.anomaly import run_anomaly
from graft.tasks.head.params import HeadParams

C, SIDE = 6, 4


@dataclass
class DrawnMaps:
    """Stands for `Maps`; blocks come in another order than the rows, as they do from the cache."""

    pack: FeatureSet
    maps_ND: np.ndarray

    @property
    def form(self):
        level, part = SimpleNamespace(channels=C, height=SIDE, width=SIDE), SimpleNamespace(channels=C)
        return SimpleNamespace(levels=(level,), parts=(part,))

    def blocks(self, rows, size=64):
        for places in np.array_split(np.arange(len(rows))[::-1], max(1, len(rows) // 9)):
            yield places, self.maps_ND[rows[places]]


def pack_of(label: list[str], split: list[str], group: list[str | None] | None = None, **columns) -> FeatureSet:
    n = len(label)
    ids = [f"{number:032x}" for number in range(n)]
    index = pd.DataFrame({"image_id": ids, "path": ids, "label": label, "task": "anomaly", "split": split})
    index = index.assign(group=pd.Series(group or [None] * n, dtype="string"), weight=1.0, pixels=ids, **columns)
    return FeatureSet(np.zeros((n, 1)), np.zeros((0, 1)), index, {})


def drawn(pack: FeatureSet, seed: int = 0) -> np.ndarray:
    """Good patches vary in five of six channels; one patch of a defect varies in the sixth."""
    x_NPC = np.random.default_rng(seed).normal(size=(len(pack.index), SIDE * SIDE, C))
    x_NPC[..., -1] *= 0.05
    x_NPC[pack.index["label"].ne("good").to_numpy(), 5, -1] = 4.0
    return x_NPC.reshape(len(x_NPC), -1).astype(np.float16)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """train(pack, maps_ND, key=value, ...) -> (paths, record)"""

    def run(pack, maps_ND=None, **params):
        maps = DrawnMaps(pack, drawn(pack) if maps_ND is None else maps_ND)
        monkeypatch.setattr(anomaly, "open_maps", lambda pack, paths: maps)
        paths = Paths(tmp_path)
        return paths, run_anomaly(pack, HeadParams(task="anomaly", **params), paths)

    return run


def good_and_defects(good: int, defects: int) -> FeatureSet:
    split = ["train" if number % 5 else "val" for number in range(good)] + ["val"] * defects
    return pack_of(["good"] * good + ["scratch"] * defects, split)


@pytest.mark.parametrize("kind", ["gaussian", "patches", "subspace"])
def test_defects_score_higher_than_good_images_though_none_was_learned_from(train, kind):
    pack = good_and_defects(60, 12)
    paths, record = train(pack, kind=kind)
    head = load_anomaly_head(paths.head)
    score_N = head.output(drawn(pack, seed=1))[:, 0]
    assert head.kind == kind == record.facts["kind"]
    assert score_N[60:].min() > score_N[:60].max()
    assert record.metrics["val_auroc"] == 1.0


def test_without_defects_the_default_is_taken_and_no_auroc_is_stated(train):
    paths, record = train(good_and_defects(50, 0))
    assert record.facts["kind"] == "patches"
    assert "val_auroc" not in record.metrics
    assert record.metrics["defects"] == 0
    assert "val_auroc" not in pd.read_csv(paths.plots("head") / "path.csv")


def test_candidates_have_the_columns_that_the_plot_of_dvc_names(train):
    paths, _ = train(good_and_defects(50, 0), kind="subspace")
    assert {"along", "train_loss", "val_loss"} <= set(pd.read_csv(paths.plots("head") / "path.csv"))


def test_with_the_same_at_the_same_place_the_default_is_a_gaussian_at_each(train):
    pack = good_and_defects(60, 0)
    maps_ND = drawn(pack) + np.random.default_rng(2).normal(0, 3, SIDE * SIDE * C).astype(np.float16)
    _, record = train(pack, maps_ND)
    assert record.facts["kind"] == "gaussian"


def test_one_defect_chooses_nothing_but_is_scored(train):
    paths, record = train(good_and_defects(50, 1))
    assert record.facts["kind"] == "patches"
    assert record.metrics["val_detection_rate"] == 1.0
    table = pd.read_parquet(paths.head / "validation.parquet")
    assert table.loc[table["label"] == "scratch", "fold"].tolist() == [-1]


def test_defects_in_validation_choose_the_better_kind(train):
    """Defects that are small against what good images vary by, and outside it."""
    pack = good_and_defects(60, 15)
    maps_ND = drawn(pack)
    maps_ND[60:].reshape(15, SIDE * SIDE, C)[:, 5, -1] = 0.25
    paths, record = train(pack, maps_ND)
    tried = pd.read_csv(paths.plots("head") / "path.csv")
    assert record.facts["kind"] == "subspace"
    assert record.metrics["val_auroc"] == tried["val_auroc"].max() > tried["val_auroc"][0]


def test_a_score_that_was_held_out_is_that_of_a_head_without_the_images_part(train):
    """The same images twice, in two groups: without the other copy each is as far as the nearest other image."""
    pack = good_and_defects(40, 0)
    paths, _ = train(pack, kind="patches")
    inside = load_anomaly_head(paths.head).output(drawn(pack))[:, 0]
    table = pd.read_parquet(paths.head / "validation.parquet")
    assert set(table["fold"]) == set(range(5))
    assert table["score"].mean() > 1.5 * inside.mean()


def test_images_of_a_group_are_held_out_together_and_count_once(train):
    group = [f"g{number // 4}" for number in range(80)]
    pack = pack_of(["good"] * 80, ["train"] * 80, group)
    paths, record = train(pack)
    table = pd.read_parquet(paths.head / "validation.parquet").assign(group=group)
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert record.metrics["units"] == 20
    assert record.metrics["guarantee"] == "expected"
    np.testing.assert_allclose(load_anomaly_head(paths.head).share, 0.25)


@pytest.mark.parametrize(("good", "guarantee"), [(20, "expected"), (45, "bound")])
def test_the_threshold_says_how_false_alarms_are_kept(train, good, guarantee, capsys):
    paths, record = train(good_and_defects(good, 0))
    told = Calibration.load(paths.head)
    assert (told.guarantee, told.max_false_alarm, record.metrics["guarantee"]) == (guarantee, 0.05, guarantee)
    assert told.threshold == record.metrics["threshold"] == pytest.approx(load_anomaly_head(paths.head).good.max())
    assert ("cannot be guaranteed" in capsys.readouterr().err) == (guarantee != "bound")


def test_constant_images_have_no_variance_and_are_not_anomalous(train):
    pack = good_and_defects(50, 0)
    paths, record = train(pack, np.full((50, SIDE * SIDE * C), 0.37, np.float16))
    head = load_anomaly_head(paths.head)
    score = head.output(np.full((1, SIDE * SIDE * C), 0.37, np.float16))[0, 0]
    assert score <= record.metrics["threshold"]
    assert head.output(np.full((1, SIDE * SIDE * C), 0.9, np.float16))[0, 0] > record.metrics["threshold"]


def test_images_of_weight_zero_and_of_the_test_are_not_learned_from(train):
    pack = good_and_defects(50, 0)
    pack.index.loc[:9, "weight"] = 0.0
    pack.index.loc[10:19, "split"] = "test"
    _, record = train(pack)
    assert record.metrics["good_images"] == 30


def test_good_images_of_one_group_alone_are_refused(train):
    with pytest.raises(DataError, match="all of one group"):
        train(pack_of(["good"] * 30, ["train"] * 30, ["a"] * 30))


def test_a_kind_of_another_task_is_refused(train):
    with pytest.raises(ParamsError, match="patches, subspace"):
        train(good_and_defects(30, 0), kind="knn")


def test_a_second_run_gives_the_same_bytes(train, tree_bytes):
    paths, _ = train(good_and_defects(60, 12))
    before = tree_bytes(paths.head)
    train(good_and_defects(60, 12))
    assert tree_bytes(paths.head) == before


@pytest.mark.parametrize(("coreset", "bank"), [("auto", 960), (100, 100), (0.25, 240)])
def test_the_bank_has_as_many_patches_as_asked_for(train, coreset, bank):
    _, record = train(good_and_defects(60, 0), kind="patches", coreset=coreset)
    assert record.metrics["bank"] == bank


def test_the_head_says_what_it_is(train):
    paths, _ = train(good_and_defects(60, 0))
    told = read_json(paths.head / "head.json")
    assert (told["kind"], told["task"], told["metric"], told["classes"]) == ("patches", "anomaly", "auroc", [])
    assert (told["channels"], told["height"], told["width"]) == (C, SIDE, SIDE)
