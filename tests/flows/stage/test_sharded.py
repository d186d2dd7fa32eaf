"""A project whose images lie in shards: no stage and no command knows the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from projects import Project, made_once, wait_for

from graft.flows.labelling.current import read_labels_now
from graft.flows.lineage.trace import trace
from graft.flows.registry.logged_model import example_of
from graft.flows.status.image_diff import images_between
from graft.flows.versioning import stale
from graft.flows.versioning.dvc import images_of, raw_hash, raw_hashes, raw_listing
from graft.tasks.common.core.paths import Paths
from graft.tasks.preprocess.walk import list_files

KEPT = ("data/manifest", "data/features", "models/head", "models/finetune", "models/package", "plots/evaluate")
"""Outputs that are the same to the byte."""


def shard(finished: Project, root: Path) -> dict[str, Any]:
    project = finished.copy(root)
    names, before = list_files(root / "data" / "raw"), {"lock": project.lock(), "raw": raw_hash(root)}
    project.graft_here("shard")
    status = project.graft_here("status", check=False).stdout
    ran = project.repro("register")
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    project.git("commit", "--all", "--quiet", "--message", "shards")
    return {**before, "names": names, "status": status, "ran": ran}


@pytest.fixture(scope="module")
def sharded(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    folder, told = made_once(tmp_path_factory, "sharded", lambda root: shard(finished, root))
    return Project(folder), told


def test_the_results_are_those_of_the_same_images_as_files(
    sharded: tuple[Project, dict[str, Any]], finished: Project
) -> None:
    project, told = sharded
    assert told["status"].startswith("data/raw changed, but no image did")
    assert "head" not in told["ran"]
    now = project.lock()
    assert {out: now[out] for out in KEPT} == {out: told["lock"][out] for out in KEPT}
    metrics = project.json("metrics/features.json")
    assert (metrics["cache_hits"], metrics["cache_misses"]) == (len(told["names"]), 0)
    picture = Path("report") / "misclassified.png"
    assert (project.root / picture).read_bytes() == (finished.root / picture).read_bytes()
    assert example_of(Paths(project.root)).equals(example_of(Paths(finished.root)))


def test_commands_name_the_images_and_not_the_shards(sharded: tuple[Project, dict[str, Any]]) -> None:
    project, told = sharded
    root, names = project.root, told["names"]
    listing = raw_listing(root)
    assert list_files(root / "data" / "raw") == names
    assert raw_hashes(root) == listing == images_of(root, told["raw"])
    assert images_between(root, told["raw"], raw_hash(root)).words() == "data/raw changed, but no image did"
    assert stale.other_images(root) == ""
    assert sorted(read_labels_now(root).data["path"]) == names
    traced = trace(root, names[3])
    assert traced["image_ids"] == [listing[names[3]]]
    assert traced["paths"] == [names[3]]
