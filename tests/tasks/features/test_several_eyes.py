"""The features of several backbones or sizes, side by side."""

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.data.eyes import backbones
from graft.tasks.common.data.feature_set import read_feature_set

TWO = {"backbone": ["test_efficientnet", "test_resnet"], "weights": "random"}


def parts(paths):
    pack = read_feature_set(paths.features)
    return [np.array(pack.only(eye).stored_ND) for eye in pack.eyes]


def test_the_features_are_those_of_each_backbone_alone(paths, run_stage):
    run_stage("features", paths, **TWO, views=1)
    together, views = parts(paths), read_feature_set(paths.features).views_VD.shape
    for eye, backbone in enumerate(TWO["backbone"]):
        run_stage("features", paths, backbone=backbone, views=1)
        alone = read_feature_set(paths.features)
        assert np.array_equal(alone.stored_ND, together[eye])
        assert len(alone.views_VD) == views[0]
    assert views[1] == sum(part.shape[1] for part in together)


def test_one_more_backbone_computes_its_own_features_only(paths, run_stage):
    metrics = run_stage("features", paths, **TWO).metrics
    assert (metrics["cache_hits"], metrics["cache_misses"]) == (30, 30)
    assert run_stage("features", paths, **TWO).metrics["cache_misses"] == 0
    for backbone in TWO["backbone"]:
        assert run_stage("features", paths, backbone=backbone).metrics["cache_misses"] == 0


def test_each_image_is_decoded_once_for_all_backbones_and_sizes(paths, run_stage, decoded):
    metrics = run_stage("features", paths, **TWO, image_size=[48, 64, 96]).metrics
    assert metrics["cache_misses"] == 6 * 30
    assert list(decoded.values()) == [1] * 30


def test_the_same_images_give_the_same_bytes_again(paths, run_stage, tree_bytes):
    run_stage("features", paths, **TWO, views=1)
    before = tree_bytes(paths.features)
    run_stage("features", paths, **TWO, views=1)
    assert tree_bytes(paths.features) == before


def test_the_fingerprint_names_the_parts_and_their_columns(paths, run_stage):
    alone = read_json(paths.features / "fingerprint.json")
    record = run_stage("features", paths, **TWO)
    fingerprint = read_json(paths.features / "fingerprint.json")
    first, second = fingerprint["eyes"]
    assert {**first, "columns": None} == {**alone, "columns": None}
    assert (first["columns"], second["columns"]) == ([0, 256], [256, 256 + second["dimension"]])
    assert fingerprint["digest"] not in (first["digest"], second["digest"])
    assert record.facts["backbone"] == "test_efficientnet + test_resnet"
    assert record.metrics["dimension"] == 256 + second["dimension"]


def test_another_order_is_another_fingerprint(paths, run_stage):
    run_stage("features", paths, **TWO)
    first = read_feature_set(paths.features).fingerprint["digest"]
    run_stage("features", paths, **{**TWO, "backbone": TWO["backbone"][::-1]})
    assert read_feature_set(paths.features).fingerprint["digest"] != first


def test_sizes_of_one_backbone_are_told_apart_by_name(paths, run_stage):
    run_stage("features", paths, image_size=[[64, 64], [64, 96]])
    named = backbones(read_feature_set(paths.features).fingerprint)
    assert named == "test_efficientnet at 64 x 64 + test_efficientnet at 64 x 96"


def test_statistics_are_of_all_parts(paths, run_stage):
    metrics = run_stage("features", paths, **TWO).metrics
    features_ND = np.asarray(read_feature_set(paths.features).stored_ND)
    assert metrics["mean"] == pytest.approx(features_ND.mean(), rel=1e-4)
    assert metrics["dead_features"] == (features_ND.std(axis=0) == 0).sum()


def test_a_damaged_segment_is_computed_again_for_its_backbone_alone(paths, run_stage):
    run_stage("features", paths, **TWO)
    before, second = parts(paths), read_feature_set(paths.features).eyes[1].fingerprint["digest"]
    for segment in (paths.cache / "features" / second).glob("*.safetensors"):
        segment.write_bytes(segment.read_bytes()[:-1] + b"x")
    run_stage("features", paths, **TWO)
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(parts(paths), before, strict=True))


def test_an_unknown_backbone_in_the_list_is_answered_with_the_nearest_one(paths, run_stage):
    with pytest.raises(ParamsError, match="did you mean `test_resnet`"):
        run_stage("features", paths, backbone=["test_efficientnet", "test_resnet_"])


def test_thumbnails_for_the_audit_are_made_too(paths, run_stage):
    run_stage("features", paths, **TWO)
    assert len(pd.read_parquet(paths.features / "index.parquet")) == 30
    assert list((paths.cache / "thumbnails").rglob("*.safetensors"))
