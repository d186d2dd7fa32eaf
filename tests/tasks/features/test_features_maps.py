import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import read_manifest, write_table
from graft.tasks.common.feature_cache.segments import FeatureCache, NotFinite
from graft.tasks.common.maps.keep import check_room, finite
from graft.tasks.common.maps.maps import open_maps

ROWS = np.arange(30)

KNOWN = {
    "backbone", "weights", "weights_sha256", "dimension", "parameters", "form", "transform", "libraries", "engine",
    "device", "precision", "dtype", "decoder", "extractor", "digest",
}  # fmt: skip
"""What the digest of features has been made of since before there were maps: more would empty every cache."""


def maps_of(paths):
    return open_maps(read_feature_set(paths.features), paths)


def append(paths, images):
    """Adds good images, by name, to the manifest."""
    table = read_manifest(paths.manifest)
    rows = []
    for name, image in images.items():
        file = paths.raw / "good" / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        image.save(file)
        image_id = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        like = table.iloc[0].to_dict() | {"split": "train", "label": "good", "pixels": image_id, "image_id": image_id}
        rows.append(like | {"path": f"good/{name}.png", "width": image.width, "height": image.height})
    more = pd.DataFrame(rows).astype(table.dtypes.to_dict())
    write_table(pd.concat([table, more]).sort_values("path"), paths.manifest / "manifest.parquet")


def test_the_pooled_features_are_those_that_a_classification_of_the_whole_images_has(map_paths, run_stage):
    before = read_feature_set(map_paths.features)
    stored, digest = np.array(before.stored_ND), before.fingerprint["digest"]
    table = read_manifest(map_paths.manifest)
    write_table(table.assign(task="classification"), map_paths.manifest / "manifest.parquet")
    record = run_stage("features", map_paths, crop="squash")
    after = read_feature_set(map_paths.features)
    assert record.metrics["cache_misses"] == 0
    assert (after.fingerprint["digest"], after.maps_fingerprint) == (digest, None)
    assert set(after.fingerprint) == KNOWN
    assert np.array_equal(after.stored_ND, stored)


def test_maps_show_the_whole_image_as_the_pooled_features_do(mapped_paths):
    fingerprint = read_json(mapped_paths.features / "fingerprint.json")
    assert fingerprint["transform"]["crop_mode"] == fingerprint["maps"]["transform"]["crop_mode"] == "squash"
    assert fingerprint["maps"]["digest"] != fingerprint["digest"]
    assert (mapped_paths.cache / "features" / fingerprint["maps"]["digest"]).is_dir()


def test_a_crop_that_is_asked_for_stays(map_paths, run_stage):
    run_stage("features", map_paths, crop="border")
    assert maps_of(map_paths).fingerprint["transform"]["crop_mode"] == "border"


def test_features_and_maps_are_computed_in_one_decode(map_paths, run_stage, decoded):
    shutil.rmtree(map_paths.cache / "features")
    metrics = run_stage("features", map_paths).metrics
    assert list(decoded.values()) == [1] * 30
    assert (metrics["cache_misses"], metrics["maps_computed"]) == (30, 30)


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(map_paths, run_stage, tree_bytes):
    before = tree_bytes(map_paths.features)
    assert run_stage("features", map_paths).metrics["maps_computed"] == 0
    assert tree_bytes(map_paths.features) == before


def test_images_that_are_added_are_all_that_is_computed(map_paths, run_stage, noise, decoded):
    append(map_paths, {"new": noise(seed=99)})
    metrics = run_stage("features", map_paths).metrics
    assert (metrics["cache_misses"], metrics["maps_computed"], metrics["maps"]) == (1, 1, 31)
    assert {path.name: count for path, count in decoded.items()} == {"new.png": 1}


def test_sizes_and_aspect_ratios_may_differ_and_images_may_be_constant(map_paths, run_stage, photo):
    shapes = {"wide": photo(192, 32), "tall": photo(32, 192), "large": photo(500, 333)}
    append(map_paths, {**shapes, "black": Image.new("RGB", (40, 40)), "white": Image.new("RGB", (64, 48), "white")})
    run_stage("features", map_paths)
    maps = maps_of(map_paths)
    found = maps.read(np.arange(35))
    assert found.shape == (35, maps.form.dimension)
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == 35


def test_other_depths_channels_and_sizes_are_other_maps(map_paths, run_stage):
    before = maps_of(map_paths).fingerprint["digest"]
    record = run_stage("features", map_paths, maps=[4, 8], map_channels=24, image_size=64, tiles=2)
    maps = maps_of(map_paths)
    (level,) = maps.form.levels
    assert (level.channels, level.height, level.width) == (24, 32, 32)
    assert record.metrics["map_dimension"] == 24 * 32 * 32
    assert maps.fingerprint["digest"] != before
    assert read_feature_set(map_paths.features).fingerprint["transform"]["height"] == 64


def test_maps_of_tiles_that_were_pruned_are_computed_again(map_paths, run_stage):
    run_stage("features", map_paths, image_size=64, tiles=2)
    maps = maps_of(map_paths)
    before = maps.read(ROWS[:3])
    shutil.rmtree(map_paths.cache / "features" / maps.fingerprint["digest"])
    assert np.array_equal(maps_of(map_paths).read(ROWS[:3]), before)


def test_the_torch_engine_gives_the_same_maps(map_paths, run_stage):
    expected = maps_of(map_paths).read(ROWS).astype(np.float32)
    run_stage("features", map_paths, engine="torch")
    maps = maps_of(map_paths)
    assert maps.fingerprint["engine"] == "torch"
    assert np.allclose(maps.read(ROWS), expected, rtol=5e-3, atol=2e-3 * np.abs(expected).max())
    shutil.rmtree(map_paths.cache / "features")
    assert np.allclose(maps_of(map_paths).read(ROWS), expected, rtol=5e-3, atol=2e-3 * np.abs(expected).max())


def test_a_damaged_segment_of_maps_is_named_and_repaired(map_paths, capsys):
    maps = maps_of(map_paths)
    before = maps.read(ROWS)
    for segment in (map_paths.cache / "features" / maps.fingerprint["digest"]).glob("*.safetensors"):
        segment.write_bytes(segment.read_bytes()[:-1] + b"x")
    assert np.array_equal(maps_of(map_paths).read(ROWS), before)
    assert "damaged" in capsys.readouterr().err


def test_views_of_the_pooled_features_have_no_maps(map_paths, run_stage):
    metrics = run_stage("features", map_paths, views=1).metrics
    assert (metrics["views"], metrics["maps_computed"]) == (len(read_feature_set(map_paths.features).rows("train")), 0)
    assert len(FeatureCache(map_paths.cache / "features" / maps_of(map_paths).fingerprint["digest"], 1)) == 30


def test_maps_of_several_backbones_are_refused(map_paths, run_stage):
    with pytest.raises(ParamsError, match="one backbone and one size"):
        run_stage("features", map_paths, backbone=["test_efficientnet", "test_resnet"])


def test_a_depth_that_the_backbone_does_not_have_is_named(map_paths, run_stage):
    with pytest.raises(ParamsError, match=r"every depth in `features\.maps`"):
        run_stage("features", map_paths, maps=["blocks.17"])


def test_the_disk_that_maps_take_is_said_in_advance(map_paths, run_stage, capsys):
    shutil.rmtree(map_paths.cache / "features")
    run_stage("features", map_paths)
    assert "the maps of 30 images take 0.00 GB of disk, 0.06 MB each" in capsys.readouterr().err


def test_maps_that_the_disk_has_no_room_for_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100, 92, 8))
    with pytest.raises(ParamsError, match="no room for the feature maps"):
        check_room(Paths(tmp_path), 7, 1)


def test_numbers_that_half_precision_cannot_hold_are_refused_by_their_depth():
    with pytest.raises(ParamsError, match=r"name other depths in `features\.maps`"), finite("resnet50"):
        raise NotFinite("", got="3 values")
