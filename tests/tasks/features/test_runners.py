"""What another machine computes of what this one has pinned: the same bytes, or nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.feature_cache.segments import FeatureCache
from graft.tasks.features.runners import pinned
from graft.tasks.features.runners.blocks import BlockRunner
from graft.tasks.features.runners.local import extract


class Elsewhere:
    """A runner that sends everything through JSON and files named by their hash, in blocks, as a cluster does.

    Args:
        block: torch rounds by the size of its batches, 64 at most, and a cluster's blocks are multiples of that.
    """

    def __init__(self, paths, folder, damaged=(), block=8):
        self.paths, self.folder, self.damaged, self.block = paths, folder, damaged, block
        self.rejected = {}

    def __call__(self, eyes, wanted_EM, source, effort):
        images = self.folder / "images"
        images.mkdir(parents=True)
        for path, image_id in zip(source.manifest["path"], source.manifest["image_id"], strict=True):
            content = b"no image" if path in self.damaged else (source.raw / path).read_bytes()
            (images / image_id).write_bytes(content)
        told, files = zip(*(pinned.describe(eye, self.paths) for eye in eyes), strict=True)
        sent = json.loads(json.dumps([list(told), source.params.model_dump(mode="json"), source.reading.as_dict()]))
        runner = BlockRunner(sent[1], sent[2], sent[0], files)
        rows = source.manifest.iloc[source.items.rows]
        table = pd.DataFrame(
            {
                "id": [one.tobytes().hex() for one in source.items.ids],
                "image_id": rows["image_id"].to_numpy(),
                "path": rows["path"].to_numpy(),
                "number": source.items.numbers,
                **{f"wanted_{number}": wanted_M for number, wanted_M in enumerate(wanted_EM)},
            }
        )
        for start in range(0, len(table), self.block):
            place = self.folder / str(start)
            self.rejected |= runner.compute(table[start : start + self.block].reset_index(drop=True), images, {}, place)
            shutil.copytree(Paths(place).cache, self.paths.cache, dirs_exist_ok=True)
        for eye in eyes:
            eye.cache.refresh()


def packed(paths):
    return {file.name: file.read_bytes() for file in paths.features.iterdir()}


@pytest.mark.parametrize(
    "changes", [{"views": 1, "image_size": [[48, 48], [64, 64]]}, {"engine": "torch", "image_size": 64}], ids=str
)
def test_blocks_on_another_machine_give_the_same_bytes(paths, run_stage, tmp_path, changes):
    local = run_stage("features", paths, **changes).metrics
    here = packed(paths)
    thumbnails = {file.name for file in (paths.cache / "thumbnails").rglob("*.safetensors")}
    shutil.rmtree(paths.cache / "features")
    shutil.rmtree(paths.cache / "thumbnails")

    away = Elsewhere(paths, tmp_path / "away", block=64 if "engine" in changes else 8)

    run_stage("features", paths, runner=away, **changes)

    assert packed(paths) == here
    assert local["cache_misses"] > 0
    assert thumbnails
    assert list((paths.cache / "thumbnails").rglob("*.safetensors"))


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_maps_are_the_same_too(map_paths, run_stage, tmp_path, engine):
    run_stage("features", map_paths, engine=engine)
    here, kept = packed(map_paths), cached(map_paths)
    shutil.rmtree(map_paths.cache / "features")

    away = Elsewhere(map_paths, tmp_path / "away", block=64 if engine == "torch" else 8)

    run_stage("features", map_paths, runner=away, engine=engine)

    assert packed(map_paths) == here
    assert {name: kept[name] for name in cached(map_paths)} == cached(map_paths)


def cached(paths):
    """Fingerprint -> id -> features."""
    found = {}
    for folder in (paths.cache / "features").iterdir():
        fingerprint = json.loads((folder / "fingerprint.json").read_text())
        cache = FeatureCache(folder, fingerprint["dimension"], fingerprint["dtype"])
        rows = {}
        for places, features in cache.read(cache._ids):
            rows |= {cache._ids[place].tobytes(): row.tobytes() for place, row in zip(places, features, strict=True)}
        found[folder.name] = rows
    return found


def test_an_image_that_cannot_be_read_is_named_and_costs_no_other(paths, run_stage, tmp_path):
    shutil.rmtree(paths.cache / "features")
    away = Elsewhere(paths, tmp_path / "away", damaged=("red/001.png", "red/002.png"))

    def run_all_but_those(eyes, wanted_EM, source, effort):
        away(eyes, wanted_EM, source, effort)
        left_EM = wanted_EM & ~np.array([eye.cache.has(source.items.ids) for eye in eyes])
        assert np.count_nonzero(left_EM) == 2
        extract(eyes, left_EM, source, effort)

    before = packed(paths)
    run_stage("features", paths, runner=run_all_but_those)

    assert packed(paths) == before
    assert away.rejected.keys() == {"red/001.png", "red/002.png"}
    assert all("cannot identify image" in reason for reason in away.rejected.values())


def test_a_machine_that_would_compute_other_features_refuses(paths, run_stage, tmp_path, monkeypatch):
    shutil.rmtree(paths.cache / "features")
    told = {}

    def note(eyes, wanted_EM, source, effort):
        told["eye"], told["files"] = pinned.describe(eyes[0], paths)
        extract(eyes, wanted_EM, source, effort)

    run_stage("features", paths, runner=note)
    monkeypatch.setattr("graft.tasks.features.extractor.version", lambda name: "1.0")
    with pytest.raises(pinned.Unable, match=r"another fingerprint[\s\S]*decoder pillow 1\.0 instead of"):
        pinned.restore(told["eye"], told["files"])
    monkeypatch.undo()
    bf16 = {**told["eye"], "fingerprint": {**told["eye"]["fingerprint"], "precision": "bf16"}}
    with pytest.raises(pinned.Unable, match="computes bf16 in another way"):
        pinned.restore({**bf16, "fast": not told["eye"]["fast"]}, told["files"])
    with pytest.raises(pinned.Unable, match=r"other versions[\s\S]*numpy \S+ instead of 1\.0"):
        pinned.require_versions({**pinned.versions(views=True), "numpy": "1.0"})
