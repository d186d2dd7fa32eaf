"""What the gate judges by, taken from real packages: the champion's own head on the current test images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from projects import Project, Rerun

from graft.flows.gate.champion import Champion
from graft.flows.gate.comparison import contest, gate_metric, why_incomparable
from graft.flows.gate.contest import Contest
from graft.flows.gate.data_checks import data_checks
from graft.flows.registry.models import fetched_package, find_version
from graft.flows.runtime.params import Params, load_params
from graft.flows.tracking.tracker import Tracker
from graft.tasks.common.core.files import read_json, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import SPLITS
from graft.tasks.common.feature_cache.segments import ids_of
from graft.tasks.register.reference_set import Reference


@pytest.fixture
def project(rerun: Rerun, tmp_path: Path) -> Project:
    return rerun.copy(tmp_path / "project")


def loaded(project: Project, package: Path) -> Champion:
    return Champion.load(package, find_version(Tracker(project.root), "graft", "1"))


def scored(project: Project, package: Path) -> Contest:
    paths = Paths(project.root)
    return contest(paths, loaded(project, package), load_params(paths.params), 0)


@pytest.fixture
def champion(project: Project, tmp_path: Path) -> Path:
    """A copy of the champion's package, to be changed."""
    import shutil

    tracker = Tracker(project.root)
    with fetched_package(tracker, find_version(tracker, "graft", "1")) as package:
        return Path(shutil.copytree(package, tmp_path / "champion"))


def test_both_are_scored_on_the_same_images_by_what_they_served(project: Project, champion: Path) -> None:
    paths = Paths(project.root)
    found = scored(project, champion)
    seen = pd.read_parquet(paths.report / "predictions.parquet")
    assert len(found.target) == len(seen)
    assert [found.classes[code] for code in found.target] == list(seen["label"])
    np.testing.assert_allclose(found.challenger, seen[[f"p_{name}" for name in found.classes]])
    assert not np.array_equal(found.challenger, found.champion), "another strength gives other probabilities"
    assert found.earlier_N.all(), "no image has come since"
    assert found.left_out == 0
    assert len(np.unique(found.unit_N)) == len(found.target), "no two have the same pixels"
    assert found.named.key == "accuracy"
    assert min(found.latency) > 0


def test_the_champions_own_graph_gives_what_the_pack_has(project: Project, champion: Path) -> None:
    """Features that are not the champion's are recomputed."""
    before = scored(project, champion).champion
    facts = read_json(champion / "package.json")
    write_json(champion / "package.json", {**facts, "fingerprint": "another"})
    np.testing.assert_allclose(scored(project, champion).champion, before, atol=1e-4)


def test_images_that_the_champion_was_trained_on_are_left_out(project: Project, champion: Path) -> None:
    paths = Paths(project.root)
    pack, reference = read_feature_set(paths.features), Reference.load(champion)
    assert reference is not None
    ids = ids_of(list(pack.index["image_id"].iloc[pack.rows("test")]))
    replace(reference, seen_ids=np.union1d(reference.seen_ids, ids[:3])).save(champion)
    found = scored(project, champion)
    assert (found.left_out, len(found.target)) == (3, len(ids) - 3)

    replace(reference, seen_ids=np.union1d(reference.seen_ids, ids)).save(champion)
    assert "every image of the test" in why_incomparable(loaded(project, champion), pack)


def test_a_sample_that_the_weights_do_not_know_is_no_training(project: Project, champion: Path) -> None:
    """Of a fine-tuned model the reference is a sample of held-out images."""
    paths = Paths(project.root)
    pack, reference = read_feature_set(paths.features), Reference.load(champion)
    assert reference is not None
    ids = ids_of(list(pack.index["image_id"].iloc[pack.rows("test")]))
    lent = replace(reference, seen_ids=np.union1d(reference.seen_ids, ids), lent_ids=np.unique(ids))
    lent.save(champion)
    assert scored(project, champion).left_out == 0
    assert scored(project, champion).earlier_N.all()


def test_a_class_that_came_later_is_one_of_which_the_champion_knows_nothing(project: Project, champion: Path) -> None:
    from graft.flows.gate.comparison import _in_columns

    found = _in_columns(np.array([[0.2, 0.8]]), ["ant", "bee"], ["bee", "wasp", "ant"])
    assert found.tolist() == [[0.8, 0.0, 0.2]]


def test_a_champion_that_knows_none_of_the_classes_cannot_be_compared(project: Project, champion: Path) -> None:
    """Its probabilities of them would all be 0, and the first class would win by order."""
    head = read_json(champion / "head.json")
    write_json(champion / "head.json", {**head, "classes": ["ant", "bee", "wasp"]})
    pack = read_feature_set(Paths(project.root).features)
    assert why_incomparable(loaded(project, champion), pack) == (
        "the champion knows none of the current classes (blue, green, red), only ant, bee, wasp"
    )

    write_json(champion / "head.json", {**head, "classes": ["ant", "green", "wasp"]})
    assert why_incomparable(loaded(project, champion), pack) == ""
    found = scored(project, champion)
    assert (found.classes, found.champion_classes) == (["blue", "green", "red"], ["ant", "green", "wasp"])


@pytest.mark.parametrize(("change", "told"), [({"task": "regression"}, "is for regression"), (None, "which images")])
def test_a_champion_of_another_kind_cannot_be_compared(
    project: Project, champion: Path, change: dict[str, str] | None, told: str
) -> None:
    if change is None:
        (champion / "reference.json").unlink()
    else:
        write_json(champion / "package.json", {**read_json(champion / "package.json"), **change})
    assert told in why_incomparable(loaded(project, champion), read_feature_set(Paths(project.root).features))


def test_the_data_are_asked_for_leaks_labels_and_drift(project: Project, champion: Path) -> None:
    paths = Paths(project.root)
    checks = {each.name: each for each in data_checks(paths, loaded(project, champion))}
    assert checks["leaks"].outcome == "passed"
    assert checks["labels of new images"].outcome == "not checked", "none has come since"
    assert set(checks) == {"leaks", "labels of new images", "drift"}

    leaked = pd.read_parquet(paths.audit / "leaked.parquet")
    test = pd.read_parquet(paths.report / "predictions.parquet")[["image_id", "path"]].assign(split="test")
    test.astype(leaked.dtypes.to_dict()).to_parquet(paths.audit / "leaked.parquet")
    leaks = data_checks(paths, loaded(project, champion))[0]
    assert leaks.outcome == "failed"
    assert "`graft group-copies` moves them" in leaks.found


def test_new_images_whose_labels_look_wrong_are_counted(project: Project, champion: Path) -> None:
    """As if the champion had known none of the images, and the audit doubted half of them."""
    paths = Paths(project.root)
    reference = Reference.load(champion)
    assert reference is not None
    nobody = np.empty(0, reference.seen_ids.dtype)
    replace(reference, seen_ids=nobody, held_out_ids=nobody).save(champion)
    pack = read_feature_set(paths.features)
    rows = pack.index.iloc[pack.rows("train", "val")]
    suspects = pd.read_parquet(paths.audit / "label_issues.parquet")
    half = pd.DataFrame({"image_id": rows["image_id"].iloc[::2]})
    half.reindex(columns=suspects.columns).to_parquet(paths.audit / "label_issues.parquet")
    check = data_checks(paths, loaded(project, champion))[1]
    assert check.outcome == "failed"
    assert f"{len(half):,} of {rows['image_id'].nunique():,}" in check.found


def test_the_metric_is_the_one_that_the_head_was_made_for_unless_another_is_chosen(tmp_path: Path) -> None:
    paths, weighted = Paths(tmp_path), {"head": {"class_weight": "balanced"}}
    paths.head.mkdir(parents=True)
    write_json(paths.head / "head.json", {})
    assert gate_metric(paths, Params()) == "accuracy"
    assert gate_metric(paths, Params.model_validate(weighted)) == "balanced_accuracy", "of an older head"
    write_json(paths.head / "head.json", {"metric": "f1_macro"})
    assert gate_metric(paths, Params()) == "f1_macro"
    assert gate_metric(paths, Params.model_validate({"gate": {"metric": "kappa"}})) == "kappa"


def larger_test(project: Project) -> tuple[int, int]:
    """As after `preprocess.test_fraction` rose: validation images are test images now. How many, of how many."""
    paths = Paths(project.root)
    index = pd.read_parquet(paths.features / "index.parquet")
    came = int((index["split"] == "val").sum())
    index = index.assign(split=index["split"].replace({"val": "test"}))
    index.to_parquet(paths.features / "index.parquet")
    test, names = index[index["split"] == "test"], read_feature_set(paths.features).classes
    predicted = pd.DataFrame(
        {f"p_{name}": np.where(test["label"] == name, 0.9, 0.1) for name in names}, index=test.index
    )
    test[["image_id", "path", "label"]].join(predicted).to_parquet(paths.report / "predictions.parquet")
    return came, len(test)


def test_validation_images_that_a_refitted_champion_learned_from_are_left_out(project: Project, champion: Path) -> None:
    assert read_json(champion / "package.json")["refitted"]
    came, of = larger_test(project)
    found = scored(project, champion)
    assert (found.left_out, len(found.target)) == (came, of - came)
    assert found.earlier_N.all()


def test_a_champion_that_was_not_refitted_is_scored_on_its_validation_images(project: Project, champion: Path) -> None:
    pack, reference = read_feature_set(Paths(project.root).features), Reference.load(champion)
    assert reference is not None
    trained, all_ids = (ids_of(list(pack.index["image_id"].iloc[pack.rows(*of)])) for of in (["train"], SPLITS))
    replace(reference, seen_ids=np.unique(trained), held_out_ids=np.setdiff1d(all_ids, trained)).save(champion)
    write_json(champion / "package.json", {**read_json(champion / "package.json"), "refitted": False})
    assert larger_test(project)[0] > 0
    assert scored(project, champion).left_out == 0


def test_a_champion_that_does_not_tell_of_a_refit_is_scored_on_later_images_only(
    project: Project, champion: Path
) -> None:
    facts = {key: value for key, value in read_json(champion / "package.json").items() if key != "refitted"}
    write_json(champion / "package.json", facts)
    paths = Paths(project.root)
    pack, reference = read_feature_set(paths.features), Reference.load(champion)
    assert "does not record whether it learned" in why_incomparable(loaded(project, champion), pack)

    assert reference is not None
    later = ids_of(list(pack.index["image_id"].iloc[pack.rows("test")[:2]]))
    replace(reference, held_out_ids=np.setdiff1d(reference.held_out_ids, later)).save(champion)
    assert why_incomparable(loaded(project, champion), pack) == ""
    assert len(scored(project, champion).target) == 2

    write_json(champion / "package.json", {**facts, "candidate": "finetune"})
    assert scored(project, champion).left_out == 0, "networks were not refitted then"


def test_copies_and_groups_of_images_that_the_champion_learned_from_are_left_out(
    project: Project, champion: Path
) -> None:
    paths = Paths(project.root)
    index = pd.read_parquet(paths.features / "index.parquet")
    train, test = (np.flatnonzero(index["split"] == split) for split in ("train", "test"))
    pixels, group = index["pixels"].copy(), index["group"].copy()
    pixels.iloc[test[0]] = pixels.iloc[train[0]]  # a lossless copy
    group.iloc[[train[1], test[1]]] = "torn"  # by splits that the data bring
    group.iloc[[test[2], test[3]]] = "patient"
    index.assign(pixels=pixels, group=group).to_parquet(paths.features / "index.parquet")
    assert scored(project, champion).left_out == 1

    reference = Reference.load(champion)
    assert reference is not None
    seen = np.union1d(reference.seen_ids, ids_of([index["image_id"].iloc[test[2]]]))
    replace(reference, seen_ids=seen).save(champion)
    assert scored(project, champion).left_out == 3
