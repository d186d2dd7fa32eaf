import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sharded import shard_files

from graft.tasks.common.core.errors import DataError, ParamsError, WeightsError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data import parts
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import read_manifest, write_table
from graft.tasks.common.engines.openvino import BATCH, Engine
from graft.tasks.common.feature_cache.segments import FeatureCache, ids_of
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import load


def cache_folders(paths):
    return sorted((paths.cache / "features").iterdir())


def segments(paths):
    return sorted((paths.cache / "features").rglob("*.safetensors"))


def keep(paths, condition):
    """Writes a manifest of some of the images, as if there were no others."""
    table = read_manifest(paths.manifest)
    write_table(table[condition(table)], paths.manifest / "manifest.parquet")


def test_the_pack_has_the_manifests_order(finished_paths):
    pack = read_feature_set(finished_paths.features)
    assert list(pack.index["image_id"]) == list(read_manifest(finished_paths.manifest)["image_id"])


def test_a_row_is_what_the_engine_gives_for_its_image(finished_paths, tiny_graph):
    pack = read_feature_set(finished_paths.features)
    engine, transform = Engine(tiny_graph.xml), tiny_graph.spec.transform
    for row in (0, 13, len(pack.index) - 1):
        file, image_id = finished_paths.raw / pack.index["path"].iloc[row], pack.index["image_id"].iloc[row]
        pixels = load(file, image_id, transform, pack.reading)
        expected = engine(pixels[None])[0]
        assert np.allclose(pack.stored_ND[row], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_fingerprint_tells_all_that_decides_what_the_features_are(finished_paths, tiny_graph):
    fingerprint = read_json(finished_paths.features / "fingerprint.json")
    assert fingerprint["backbone"] == "test_efficientnet"
    assert fingerprint["weights_sha256"] == tiny_graph.spec.weights_sha256
    assert fingerprint["precision"] == "f32"
    assert fingerprint["transform"]["interpolation"] == "bicubic"
    assert cache_folders(finished_paths)[0].name == fingerprint["digest"]


def test_a_licence_that_excludes_commercial_use_is_said_once_and_recorded(paths, run_stage, monkeypatch, capsys):
    monkeypatch.setattr("graft.tasks.features.stage.licence_of", lambda *_: "cc-by-nc-4.0")
    before = read_json(paths.features / "fingerprint.json")

    record = run_stage("features", paths)

    assert capsys.readouterr().err.count("cc-by-nc-4.0 (non-commercial)") == 1
    assert record.facts["licence"] == "cc-by-nc-4.0 (non-commercial)"
    after = read_json(paths.features / "fingerprint.json")
    assert (after.pop("licence"), after) == ("cc-by-nc-4.0 (non-commercial)", before)


def test_a_licence_for_every_use_is_recorded_without_a_warning(paths, run_stage, monkeypatch, capsys):
    monkeypatch.setattr("graft.tasks.features.stage.licence_of", lambda *_: "apache-2.0")

    assert run_stage("features", paths).facts["licence"] == "apache-2.0"
    assert "apache-2.0" not in capsys.readouterr().err


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.features)
    metrics = run_stage("features", paths).metrics
    assert (metrics["cache_hits"], metrics["cache_misses"], metrics["nodes"]) == (30, 0, 0)
    assert tree_bytes(paths.features) == before


def test_without_the_cache_the_pack_has_the_same_bytes(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.features)
    shutil.rmtree(paths.cache / "features")
    assert run_stage("features", paths).metrics["cache_misses"] == 30
    assert tree_bytes(paths.features) == before


def test_only_images_that_are_new_are_computed(paths, run_stage):
    shutil.rmtree(paths.cache / "features")
    everything = read_manifest(paths.manifest)
    keep(paths, lambda t: t["label"] != "red")
    run_stage("features", paths)
    write_table(everything, paths.manifest / "manifest.parquet")
    metrics = run_stage("features", paths).metrics
    assert (metrics["cache_hits"], metrics["cache_misses"], metrics["nodes"]) == (20, 10, 1)
    assert len(read_feature_set(paths.features).index) == 30


def test_an_image_that_was_taken_out_is_not_in_the_pack(paths, run_stage):
    keep(paths, lambda t: t["path"] != "red/000.png")
    run_stage("features", paths)
    assert "red/000.png" not in set(read_feature_set(paths.features).index["path"])


def test_a_file_that_occurs_twice_is_computed_once(paths, run_stage):
    shutil.rmtree(paths.cache / "features")
    table = read_manifest(paths.manifest)
    shutil.copy(paths.raw / "red/000.png", paths.raw / "red/copy.png")
    twin = table[table["path"] == "red/000.png"].assign(path="red/copy.png")
    write_table(pd.concat([table, twin]), paths.manifest / "manifest.parquet")
    assert run_stage("features", paths).metrics["cache_misses"] == 30
    assert np.array_equal(*(read_feature_set(paths.features).stored_ND[row] for row in (20, 30)))


@pytest.mark.parametrize("place", [-1, 0, 9, 400])
def test_a_damaged_cache_is_named_and_repaired(paths, run_stage, tree_bytes, capsys, place):
    before = tree_bytes(paths.features)
    (segment,) = segments(paths)
    content = bytearray(segment.read_bytes())
    content[place] ^= 1
    segment.write_bytes(content)
    assert run_stage("features", paths).metrics["cache_misses"] == 30
    assert segment.name in capsys.readouterr().err
    assert tree_bytes(paths.features) == before


def test_another_decoder_is_another_cache(paths, run_stage, monkeypatch):
    monkeypatch.setattr("graft.tasks.features.extractor.EXTRACTOR", 99)
    assert run_stage("features", paths).metrics["cache_misses"] == 30
    assert len(cache_folders(paths)) == 2


def test_a_run_that_fails_keeps_what_it_has_computed_and_the_earlier_pack(paths, run_stage, tree_bytes, monkeypatch):
    shutil.rmtree(paths.cache / "features")
    before = tree_bytes(paths.features)
    computed = threading.Event()

    def add(cache, ids, features):
        original(cache, ids, features)
        computed.set()

    def decode_when_others_are_done(reading, path, image_id):
        if path.name == "009.png" and path.parent.name == "red":  # the last of all
            assert computed.wait(timeout=60)
            path.unlink()
        return decode(reading, path, image_id)

    original, decode = FeatureCache.add, Reading.file
    monkeypatch.setattr(FeatureCache, "add", add)
    monkeypatch.setattr(Reading, "file", decode_when_others_are_done)
    with pytest.raises(DataError, match=r"009\.png cannot be read"):
        run_stage("features", paths)
    (folder,) = cache_folders(paths)
    assert FeatureCache(folder, 256).has(ids_of(list(read_manifest(paths.manifest)["image_id"]))).any()
    assert tree_bytes(paths.features) == before


PROGRAM = """
import pathlib, sys, time
import graft.tasks.common.feature_cache.segments as cache, graft.tasks.features.stage as stage
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.images.reading import Reading
from graft.tasks.features.params import FeaturesParams

class Counting(cache.FeatureCache):
    def add(self, ids, features):
        with open(sys.argv[2], "a") as log:
            log.write("x" * len(ids))
        super().add(ids, features)

root, cache.SEGMENT, stage.FeatureCache, original = pathlib.Path(sys.argv[1]), 5, Counting, Reading.file
Reading.file = lambda *words: (time.sleep(0.02), original(*words))[1]
print("begun", flush=True)
while not (root.parent / "go").exists():
    time.sleep(0.001)
params = FeaturesParams(backbone="test_efficientnet", weights="random", precision="f32")
print(stage.run(params, Paths(root)).metrics["cache_misses"])
"""


def start(paths, repository, log):
    """The stage in a process of its own, which waits for the file `go`; segments of 5 images, slow decoding."""
    words = [sys.executable, "-c", PROGRAM, str(paths.root), str(log)]
    process = subprocess.Popen(words, cwd=repository, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process


def test_killed_at_random_moments_it_loses_one_segment_at_most_and_ends_with_the_same_bytes(
    paths, repository, tree_bytes, tmp_path
):
    before = tree_bytes(paths.features)
    shutil.rmtree(paths.cache / "features")
    (paths.root.parent / "go").touch()
    log, chance = tmp_path / "log", random.Random(5)
    for _ in range(6):
        process = start(paths, repository, log)
        try:
            process.wait(chance.uniform(0.1, 0.6))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    computed = len(log.read_text()) if log.exists() else 0
    kept = sum(len(FeatureCache(folder, 256)) for folder in cache_folders(paths))
    assert computed - kept <= 6 * (5 + BATCH)  # a segment that was being filled, and the batch that came on top
    assert 0 < kept <= 30
    process = start(paths, repository, log)
    assert process.communicate()[0] == f"{30 - kept}\n"
    assert tree_bytes(paths.features) == before


def test_two_extractions_at_once_in_one_empty_cache_are_both_right(paths, repository, tree_bytes, tmp_path):
    before = tree_bytes(paths.features)
    shutil.rmtree(paths.cache)
    paths.cache.mkdir()
    others = Paths(Path(shutil.copytree(paths.root, tmp_path / "other")))
    others.cache.rmdir()
    others.cache.symlink_to(paths.cache)
    both = [start(p, repository, tmp_path / f"log{n}") for n, p in enumerate((paths, others))]
    (tmp_path / "go").touch()
    computed = [int(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert 30 <= sum(computed) <= 60  # how much of it twice depends on who is first
    assert tree_bytes(paths.features) == tree_bytes(others.features) == before


def test_a_view_of_an_image_that_is_gone_is_an_error_for_the_user(paths, run_stage):
    path = read_feature_set(paths.features).index.query("split == 'train'")["path"].iloc[0]
    (paths.raw / path).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        run_stage("features", paths, views=1)


def test_the_torch_engine_gives_the_same_features_under_another_fingerprint(paths, run_stage):
    expected = read_feature_set(paths.features)
    rows, old = np.arange(30), expected.features(np.arange(30)).copy()
    record = run_stage("features", paths, engine="torch")
    new = read_feature_set(paths.features)
    assert record.facts["engine"] == f"torch on {new.fingerprint['device']}"
    assert new.fingerprint["digest"] != expected.fingerprint["digest"]
    assert np.allclose(new.features(rows), old, rtol=1e-3, atol=1e-4 * np.abs(old).max())


def test_half_precision_is_kept_apart_and_close(paths, run_stage):
    old = read_feature_set(paths.features).features(np.arange(30)).copy()
    assert run_stage("features", paths, dtype="float16").metrics["cache_misses"] == 30
    pack = read_feature_set(paths.features)
    assert pack.stored_ND.dtype == np.float16
    assert pack.features(np.arange(30)).dtype == np.float32
    assert np.allclose(pack.features(np.arange(30)), old, rtol=2e-3, atol=1e-3)


def test_a_precision_that_was_compared_once_is_not_compared_again(paths, run_stage, monkeypatch):
    run_stage("features", paths, precision="bf16")
    before = read_feature_set(paths.features).fingerprint["digest"]
    monkeypatch.setattr(
        "graft.tasks.features.extractor.choose_precision", lambda *_, **__: pytest.fail("compared again")
    )
    keep(paths, lambda t: t["label"] != "blue")  # other first images
    run_stage("features", paths, precision="bf16")
    assert read_feature_set(paths.features).fingerprint["digest"] == before


def test_views_are_of_the_training_images_and_do_not_change_the_images_features(paths, run_stage):
    before = read_feature_set(paths.features).features(np.arange(30)).copy()
    metrics = run_stage("features", paths, views=2).metrics
    pack = read_feature_set(paths.features)
    train = len(pack.rows("train"))
    assert (metrics["views"], metrics["cache_hits"], metrics["cache_misses"]) == (2 * train, 30, 2 * train)
    assert np.array_equal(pack.features(np.arange(30)), before)
    assert pack.views_VD.shape == (2 * train, 256)
    assert not np.allclose(pack.views_VD[:train], pack.views_VD[train:])


def test_views_are_cached_and_more_of_them_cost_only_the_new_ones(paths, run_stage):
    run_stage("features", paths, views=1)
    first = np.array(read_feature_set(paths.features).views_VD)
    train = len(read_feature_set(paths.features).rows("train"))
    assert run_stage("features", paths, views=1).metrics["cache_misses"] == 0
    assert run_stage("features", paths, views=3).metrics["cache_misses"] == 2 * train
    assert np.array_equal(read_feature_set(paths.features).views_VD[:train], first)


def test_many_rows_are_in_parts_by_shard_and_are_learned_from_as_from_one_file(
    paths, run_stage, tree_bytes, monkeypatch
):
    run_stage("features", paths, views=2)
    run_stage("head", paths)
    whole, head = read_feature_set(paths.features), tree_bytes(paths.head)
    names, values, views = list(whole.index["path"]), np.array(whole.stored_ND), np.array(whole.views_VD)
    shard_files(paths.raw, names[::2], "shard-000000")
    shard_files(paths.raw, names[1:21:2], "shard-000001")
    monkeypatch.setattr(parts, "PART", 12)
    assert run_stage("features", paths, views=2).metrics["cache_misses"] == 0
    run_stage("head", paths)

    pack = read_feature_set(paths.features)
    assert np.bincount(pd.read_parquet(paths.features / "index.parquet")["part"]).tolist() == [12, 3, 10, 5]
    assert np.array_equal(np.load(paths.features / "features-00002.npy"), values[1:21:2])
    assert np.array_equal(pack.stored_ND, values)
    assert np.array_equal(pack.views_VD, views)
    pd.testing.assert_frame_equal(pack.index, whole.index)
    assert tree_bytes(paths.head) == head
    before = {file.name: file.read_bytes() for file in paths.features.glob("*-0000[012].npy")}
    shard_files(paths.raw, names[21::2], "shard-000002")
    run_stage("features", paths, views=2)
    assert {file.name: file.read_bytes() for file in paths.features.glob("*-0000[012].npy")} == before


@pytest.mark.parametrize("change", [{"view_seed": 1}, {"view_crop_scale": 0.9}, {"view_flip": False}])
def test_another_augmentation_makes_other_views(paths, run_stage, change):
    run_stage("features", paths, views=1)
    train = len(read_feature_set(paths.features).rows("train"))
    assert run_stage("features", paths, views=1, **change).metrics["cache_misses"] == train


def test_what_the_head_learns_from_has_the_views_with_their_images_labels(paths, run_stage):
    run_stage("features", paths, views=2)
    pack = read_feature_set(paths.features)
    x_ND, rows = pack.with_views(pack.rows("train", "val"))
    train = pack.rows("train")
    assert x_ND.shape == (len(rows), 256)
    assert list(rows) == [*pack.rows("train", "val"), *train, *train]
    assert np.array_equal(x_ND[len(pack.rows("train", "val")) :], pack.views_VD)
    assert list(pack.with_views(pack.rows("val"))[1]) == list(pack.rows("val"))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_number_of_threads_changes_nothing(paths, run_stage, tree_bytes, threads):
    before = tree_bytes(paths.features)
    shutil.rmtree(paths.cache / "features")
    run_stage("features", paths, threads=threads)
    assert tree_bytes(paths.features) == before


def test_no_manifest_names_the_stage_that_makes_it(paths, run_stage):
    shutil.rmtree(paths.manifest)
    with pytest.raises(DataError, match="preprocess"):
        run_stage("features", paths)


def test_an_unknown_backbone_is_answered_with_the_nearest_one(paths, run_stage):
    with pytest.raises(ParamsError, match="did you mean `test_efficientnet`"):
        run_stage("features", paths, backbone="test_efficientnet_")


def test_weights_that_are_not_the_pinned_ones_are_refused(paths, run_stage):
    with pytest.raises(WeightsError, match="not the pinned ones"):
        run_stage("features", paths, backbone="tf_efficientnet_lite0", weights="package", weights_sha256="0" * 64)


def test_metrics_tell_statistics_of_the_features(paths, run_stage):
    record = run_stage("features", paths)
    features_ND = np.asarray(read_feature_set(paths.features).stored_ND)
    assert record.metrics["mean"] == pytest.approx(features_ND.mean(), rel=1e-4)
    assert record.metrics["dead_features"] == (features_ND.std(axis=0) == 0).sum()
    assert [record.metrics[key] for key in ("unseen", "unseen_worst")] == pytest.approx([1 - 160**2 / 168**2] * 2)
    assert record.facts["fingerprint"] == read_feature_set(paths.features).fingerprint["digest"]


def test_a_run_for_which_all_is_known_imports_neither_torch_nor_ray(paths, repository):
    program = (
        "import sys, pathlib\n"
        "from graft.tasks.common.core.paths import Paths\n"
        "from graft.tasks.features.params import FeaturesParams\n"
        "from graft.tasks.features.stage import run\n"
        "params = FeaturesParams(backbone='test_efficientnet', weights='random', precision='f32')\n"
        "run(params, Paths(pathlib.Path(sys.argv[1])))\n"
        "sys.exit(bool({'torch', 'ray'} & {*sys.modules}))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(paths.root)], cwd=repository, check=True)


def test_another_size_is_computed_again_and_the_first_one_is_still_there(paths, run_stage):
    images = len(read_manifest(paths.manifest))
    assert run_stage("features", paths, image_size=64).metrics["cache_misses"] == images
    assert read_feature_set(paths.features).fingerprint["transform"]["height"] == 64
    assert run_stage("features", paths).metrics["cache_misses"] == 0


def test_a_size_that_the_backbone_does_not_take_leaves_the_features_alone(paths, run_stage, tree_bytes):
    before = tree_bytes(paths.features)
    with pytest.raises(ParamsError, match="convit_tiny"):
        run_stage("features", paths, backbone="convit_tiny", image_size=192)
    assert tree_bytes(paths.features) == before
