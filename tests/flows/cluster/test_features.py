"""Features computed by the nodes of a real cluster: the same bytes as on this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from projects import Project, wait_for
from sharded import shard_files

from graft.flows.cluster import features
from graft.flows.cluster.exchange import Folder
from graft.flows.cluster.features import RayRunner, fetch_segment
from graft.flows.cluster.submit import Job
from graft.flows.runtime.params import ComputeParams, load_params
from graft.flows.versioning.dvc import raw_listing
from graft.tasks.common.core.errors import DataError, GraftError, TransientError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.common.feature_cache.segments import FeatureCache
from graft.tasks.features import stage


@dataclass(frozen=True)
class Place:
    """A project with a DVC remote in a folder, and the cluster."""

    project: Project
    cluster: Cluster
    store: Path

    @property
    def paths(self) -> Paths:
        return Paths(self.project.root)

    @property
    def compute(self) -> ComputeParams:
        return ComputeParams(engine="ray", address=self.cluster.address)

    def runner(self, block: int = 8, lease_seconds: float = 30.0) -> RayRunner:
        """With smaller blocks than a user may have."""
        return RayRunner(self.compute.model_copy(update={"block": block, "lease_seconds": lease_seconds}), self.paths)

    def run(self, runner: Any = None, **changes: Any) -> dict[str, Any]:
        params = load_params(self.paths.params).features.model_copy(update=changes)
        runner = runner or self.runner()
        return dict(stage.run(params, self.paths, runner).metrics)

    def forget(self) -> None:
        """Removes all features, here and in the exchange, and what the nodes keep of the images."""
        nodes = self.cluster.folder.glob("cache-*/images")
        for folder in (self.paths.cache / "features", self.paths.cache / "thumbnails", self.store / "graft", *nodes):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(project: Project, ray_cluster: Cluster, tmp_path: Path) -> Place:
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    return Place(project, ray_cluster, tmp_path / "store")


def packed(paths: Paths) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in paths.features.iterdir()}


def cached(paths: Paths) -> dict[str, dict[bytes, bytes]]:
    """Fingerprint, or kind of thumbnails -> id -> its bytes."""
    found = {}
    for folder in [*(paths.cache / "features").iterdir(), *(paths.cache / "thumbnails").iterdir()]:
        dimension, dtype = _form(folder)
        cache = FeatureCache(folder, dimension, dtype)
        ids = cache._ids
        found[folder.name] = {
            ids[place].tobytes(): row.tobytes()
            for places, rows in cache.read(ids)
            for place, row in zip(places, rows, strict=True)
        }
    return found


def _form(folder: Path) -> tuple[int, Any]:
    from safetensors.numpy import load_file

    features = load_file(next(folder.glob("*.safetensors")))["features"]
    return features.shape[1], features.dtype.name


def jobs(place: Place) -> list[str]:
    folder = place.store / "graft" / "jobs"
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def test_nodes_compute_the_same_bytes_and_push_what_they_need_and_a_later_run_finds_it(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {"views": 1, "image_size": ((48, 48), (64, 64))}
    place.forget()
    local = place.run(stage.extract, **changes)
    here, kept = packed(place.paths), cached(place.paths)
    place.forget()

    away = place.run(**changes)

    assert packed(place.paths) == here
    assert cached(place.paths) == kept
    assert (local["nodes"], away["nodes"]) == (1, 2)
    assert {**away, "nodes": 1, "images_per_second": 0} == {**local, "images_per_second": 0}
    assert "pushed 42 files of data/raw" in capfd.readouterr().err
    assert not jobs(place)

    shutil.rmtree(place.paths.cache / "features")  # as in a clone
    again = place.run(**changes)
    assert (again["nodes"], again["cache_misses"]) == (0, 0)
    assert packed(place.paths) == here
    assert "collected from the exchange" in capfd.readouterr().err


def test_an_image_that_is_damaged_in_the_remote_is_named_after_all_others_are_computed(place: Place) -> None:
    place.project.dvc("push")
    digest = raw_listing(place.project.root)["red/003.png"]
    (place.store / "files" / "md5" / digest[:2] / digest[2:]).unlink()
    (place.store / "files" / "md5" / digest[:2] / digest[2:]).write_bytes(b"another")
    place.forget()

    with pytest.raises(DataError, match=r"1 images cannot be read on the nodes[\s\S]*red/003\.png: damaged in the DVC"):
        place.run()
    (folder,) = (place.paths.cache / "features").iterdir()
    assert len(FeatureCache(folder, 256)) == 41
    assert not jobs(place)


def test_nodes_with_other_versions_are_left_out_and_without_any_node_there_is_one_clear_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place.forget()
    monkeypatch.setattr("graft.flows.cluster.features.versions", lambda views: {"python": "2.7", "numpy": "1.0"})

    with pytest.raises(GraftError, match=r"no node of the cluster can do the work[\s\S]*python 3\.\d+ instead of 2\.7"):
        place.run()
    assert "is left out" in capfd.readouterr().err
    assert not jobs(place)


def test_a_killed_worker_costs_its_blocks_and_nothing_else_and_images_may_lie_in_shards(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, killed = packed(place.paths), []
    shard_files(place.paths.raw, [path for path in raw_listing(place.project.root) if path.startswith("red/")])
    place.project.dvc("add", "data/raw")
    place.forget()

    def kill_one(*words: Any) -> None:
        if not killed:
            killed.extend(place.cluster.workers()[:1])
            killed[0].kill()
        fetch_segment(*words)

    monkeypatch.setattr(features, "fetch_segment", kill_one)
    metrics = place.run(place.runner(block=2))

    assert packed(place.paths) == before
    assert killed
    assert metrics["cache_misses"] == 42
    wait_for(lambda: not place.cluster.workers(), seconds=60)


class PowerFailure(BaseException):
    """The submitter is no more."""


@pytest.mark.drill
def test_a_killed_driver_or_submitter_ends_the_job_and_the_next_run_takes_over_what_it_left(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left = packed(place.paths)["features.npy"], []
    place.forget()
    items = 42 + 30 * int((read_manifest(place.paths.manifest)["split"] == "train").sum())

    def kill_driver(*words: Any) -> None:
        for process in place.cluster.drivers():
            process.kill()
        fetch_segment(*words)

    def fail(*_words: Any) -> None:
        raise PowerFailure

    with monkeypatch.context() as patch:
        patch.setattr(features, "fetch_segment", kill_driver)
        with pytest.raises(TransientError, match=r"ended before its work was done[\s\S]*run again"):
            place.run(place.runner(block=1), views=30)
    wait_for(lambda: not place.cluster.workers(), seconds=60)
    assert not jobs(place)

    with monkeypatch.context() as patch:
        patch.setattr(RayRunner, "_hear", fail)
        patch.setattr(Job, "stop", lambda job: left.append(job))
        patch.setattr(Folder, "remove", lambda folder: None)
        with pytest.raises(PowerFailure):
            place.run(place.runner(block=1, lease_seconds=2.0), views=30)
    wait_for(lambda: left[0].status() == "FAILED" and not place.cluster.workers(), seconds=120)
    assert not jobs(place), "the driver removes what a job needed"

    metrics = place.run(place.runner(block=64), views=30)
    assert metrics["cache_misses"] < items == metrics["cache_hits"] + metrics["cache_misses"]
    assert packed(place.paths)["features.npy"] == before
