"""The whole pipeline on several backbones at once, as one model."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.common.reporting.origin import origin
from graft.tasks.evaluate.saliency import on_the_whole
from graft.tasks.register import packaged_eyes
from graft.tasks.register.reference_set import Reference, package_features
from graft.tasks.register.serving import ImageClassifier

CHANGES = {
    "features": {"backbone": ["test_efficientnet", "test_resnet"], "image_size": 64},
    "head": {"combine": "mean"},
    "finetune": {"mode": "auto"},
}


@pytest.fixture(scope="module")
def several(tmp_path_factory, fill_classes, run_stage):
    """(paths, records) of a project on which every stage has run. For reading only."""
    paths = Paths(tmp_path_factory.mktemp("several"))
    fill_classes(paths.raw, 8)
    return paths, {stage: run_stage(stage, paths, **CHANGES.get(stage, {})) for stage in STAGES}


@pytest.fixture(scope="module")
def ran(several):
    return several[0]


def test_the_package_agrees_with_evaluate(several):
    assert several[1]["register"].metrics["largest_difference"] < 1e-4


def test_the_head_of_each_backbone_is_in_the_package(ran):
    head = load_head(ran.package)
    assert (head.kind, [part.kind for part in head.parts]) == ("mean", ["linear", "linear"])


def test_the_package_has_a_graph_and_a_transform_for_each(ran, names_in):
    eyes = read_json(ran.package / "package.json")["eyes"]
    assert [(eye["graph"], eye["backbone"]) for eye in eyes] == [
        ("graph-0", "test_efficientnet"),
        ("graph-1", "test_resnet"),
    ]
    graphs = {name for name in names_in(ran.package) if name.startswith("graph")}
    assert graphs == {"graph-0.xml", "graph-0.bin", "graph-1.xml", "graph-1.bin"}


def test_the_package_decodes_an_image_once(ran, monkeypatch):
    decoded, decode = Counter(), Reading.image
    monkeypatch.setattr(Reading, "image", lambda own, content: (decoded.update([content]), decode(own, content))[1])
    files = sorted(ran.raw.rglob("*.png"))[:5]
    assert len(ImageClassifier(ran.package).predict(files)) == 5
    assert decoded == Counter(file.read_bytes() for file in files)


def test_the_packages_features_are_those_of_the_feature_set(ran):
    pack = read_feature_set(ran.features)
    files = [ran.raw / path for path in pack.index["path"]]
    assert np.allclose(
        package_features(ran.package, files, list(pack.index["image_id"]), "test"), pack.stored_ND, atol=1e-5
    )


def test_the_reference_has_the_features_of_all_backbones(ran):
    reference, pack = Reference.load(ran.package), read_feature_set(ran.features)
    assert reference.features_nD.shape[1] == pack.stored_ND.shape[1]
    assert reference.fingerprint == pack.fingerprint["digest"]


def test_an_image_that_cannot_be_read_is_named(ran):
    good = sorted(ran.raw.rglob("*.png"))[0]
    with pytest.raises(ValueError, match="input 1 is not an image"):
        ImageClassifier(ran.package).predict([good, b"no image"])


def test_no_images_give_no_features(ran):
    assert packaged_eyes.PackagedEyes(ran.package).features(lambda i: None, 0).shape == (0, 352)


def test_fine_tuning_says_why_the_frozen_head_stays(several):
    assert several[1]["finetune"].facts["reason"] == (
        "several backbones or sizes cannot be fine-tuned together: test_efficientnet + test_resnet"
    )


def test_fine_tuning_that_is_asked_for_is_refused(ran, run_stage):
    with pytest.raises(ParamsError, match="only one backbone at one size can be fine-tuned"):
        run_stage("finetune", ran, mode="on")


def test_the_report_names_all_backbones_and_sizes(ran):
    told = origin(read_feature_set(ran.features), ran)
    assert (told["backbone"], told["input"]) == ("test_efficientnet + test_resnet", "64 x 64 x 3")


def test_the_report_shows_the_mean_of_the_maps(ran):
    with Image.open(ran.report / "saliency.png") as picture:
        assert np.asarray(picture).std() > 1


@pytest.mark.parametrize("head", [{"combine": "side_by_side"}, {"combine": "mean", "kind": "knn"}])
def test_other_heads_are_packaged_too(several, tmp_path, run_stage, head):
    paths = Paths(tmp_path / "project")
    shutil.copytree(several[0].root, paths.root)
    for stage in ("head", "finetune", "evaluate", "register"):
        record = run_stage(stage, paths, **(head if stage == "head" else {}))
    assert record.metrics["largest_difference"] < 1e-4
    seen = pd.read_parquet(paths.report / "predictions.parquet")
    answers = ImageClassifier(paths.package).predict([paths.raw / path for path in seen["path"]])
    assert [answer["label"] for answer in answers] == list(seen["predicted"])


def test_a_champion_of_one_of_the_backbones_finds_its_features(ran):
    from graft.flows.gate.comparison import _features_of

    pack = read_feature_set(ran.features)
    for eye in pack.eyes:
        own = _features_of({"candidate": "head", "fingerprint": eye.fingerprint["digest"]}, pack)
        assert np.array_equal(own.stored_ND, pack.stored_ND[:, eye.columns])
    assert _features_of({"candidate": "head", "fingerprint": pack.fingerprint["digest"]}, pack) is pack
    assert _features_of({"candidate": "head", "fingerprint": "another"}, pack) is None
    assert _features_of({"candidate": "finetune", "fingerprint": pack.fingerprint["digest"]}, pack) is None


def test_drift_finds_the_features_of_all_backbones_in_the_cache(ran, monkeypatch):
    from graft.flows.studies import drift
    from graft.tasks.common.feature_cache.segments import ids_of

    pack, reference = read_feature_set(ran.features), Reference.load(ran.package)
    files = [ran.raw / path for path in pack.index["path"]]
    ids, everyone = ids_of(list(pack.index["image_id"])), np.arange(len(pack.index))
    today = drift.Today(list(pack.index["path"]), files, ids, everyone, "")
    monkeypatch.setattr(drift, "package_features", lambda *given: pytest.fail("computed again"))
    assert np.array_equal(drift.features_of(today, reference, ran.package, ran), pack.stored_ND)


def test_drift_computes_what_one_of_the_caches_lacks(ran, tmp_path):
    from graft.flows.studies import drift
    from graft.tasks.common.feature_cache.segments import ids_of

    pack, reference = read_feature_set(ran.features), Reference.load(ran.package)
    paths = Paths(tmp_path)
    first = pack.eyes[0].fingerprint["digest"]
    (paths.cache / "features").mkdir(parents=True)
    (paths.cache / "features" / first).symlink_to(ran.cache / "features" / first)
    files = [ran.raw / path for path in pack.index["path"]]
    ids, everyone = ids_of(list(pack.index["image_id"])), np.arange(len(pack.index))
    today = drift.Today(list(pack.index["path"]), files, ids, everyone, "")
    assert np.allclose(drift.features_of(today, reference, ran.package, paths), pack.stored_ND, atol=1e-5)


def test_the_cache_of_each_backbone_is_in_use(ran):
    from graft.flows.maintenance.feature_cache import CURRENT, collect, list_cache

    digests = [eye.fingerprint["digest"] for eye in read_feature_set(ran.features).eyes]
    assert {entry.digest: entry.used_by for entry in list_cache(ran.root, {})} == dict.fromkeys(digests, (CURRENT,))
    assert collect(ran.root, {}, keep=[CURRENT], gigabytes=None, dry_run=True) == []
    aliased = list_cache(ran.root, {"champion": ",".join(digests)})
    assert all("champion" in entry.used_by for entry in aliased)


def test_the_features_of_a_registered_model_are_those_of_all_its_backbones():
    from unittest import mock

    from graft.flows.registry.models import EYES, FINGERPRINT, feature_fingerprints

    tags = {"1": {FINGERPRINT: "ab"}, "2": {FINGERPRINT: "cd", EYES: "ef,gh"}, "3": {}}
    tracker = mock.Mock()
    tracker.client.get_registered_model.return_value.aliases = {"champion": 1, "challenger": 2, "previous": 3}
    tracker.client.get_model_version = lambda name, version: mock.Mock(tags=tags[version])
    assert feature_fingerprints(tracker, "graft") == {"champion": "ab", "challenger": "ef,gh"}


def test_only_one_backbone_can_be_fine_tuned_for_a_comparison(ran):
    from graft.flows.studies.compare import _refuse_several

    pack = read_feature_set(ran.features)
    with pytest.raises(ParamsError, match="only fine-tune one backbone"):
        _refuse_several(pack, ["head", "last_stage"])
    _refuse_several(pack, ["head"])
    _refuse_several(pack.only(pack.eyes[0]), ["head", "last_stage"])


def test_a_comparison_names_the_sizes_of_all():
    from graft.flows.studies.compare_text import _what

    found = {"backbone": "a + b", "train_images": 10, "judged": 5}
    assert _what({**found, "image_size": [64, 96]}).startswith("a + b at 96 x 64 pixels; 10 training")
    assert _what({**found, "image_size": [[64, 64], [64, 96]]}).startswith("a + b at 64 x 64, 96 x 64 pixels;")


def test_the_run_table_has_the_sizes_of_all(ran):
    from unittest import mock

    from graft.flows.tracking.run_table import _params

    run = mock.Mock()
    run.data.params, run.data.metrics, run.data.tags = {}, {"l2_0": 0.1, "l2_1": 0.01, "l2_norm": 3}, {"kind": "ridge"}
    assert _params("features", run, ran) == {"features.image_size": "64 x 64"}
    assert _params("head", run, ran) == {"head.chosen": "ridge l2_0=0.1 l2_1=0.01"}


def test_one_backbone_is_still_packaged_as_ever(finished_paths):
    facts = read_json(finished_paths.package / "package.json")
    assert "eyes" not in facts
    assert {"transform", "precision"} <= set(facts)
    assert (finished_paths.package / "graph.xml").is_file()


def test_the_maps_of_all_are_averaged_where_their_crops_lie():
    square = EvalTransform(4, 4, 1.0, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)
    first, second = np.zeros((4, 4), np.float32), np.zeros((8, 8), np.float32)
    first[0, 0], second[6:, 6:] = 1, 1
    whole = np.zeros((4, 4, 3), np.uint8)
    shown, mean_HW, seen_HW = on_the_whole(whole, (4, 4), [first, second], [square, replace(square, height=8, width=8)])
    assert shown.shape == (4, 4, 3)
    assert seen_HW.all()
    assert mean_HW.max() == 1
    assert mean_HW[0, 0] > 0.5
    assert mean_HW[3, 3] > 0.5
    assert mean_HW[0, 3] == 0


def test_the_part_of_a_head_for_columns(several):
    from graft.tasks.evaluate.grad_cam import NoMaps, part_of

    head = load_head(several[0].head)
    _, second = head.columns()
    assert part_of(head, second) is head.parts[1]
    linear = head.parts[0]
    narrow = part_of(linear, slice(0, 10))
    assert np.array_equal(narrow.weight, linear.weight[:, :10])
    with pytest.raises(NoMaps, match="cannot be taken apart"):
        part_of(mlp(), slice(0, 2))
    assert part_of(mlp(), slice(0, 5)).kind == "mlp"


def mlp():
    from graft.tasks.common.heads.mlp import MlpHead

    rng = np.random.default_rng(0)
    shapes = ((7, 5), (7,), (3, 7), (3,))
    return MlpHead(*(rng.normal(size=shape).astype(np.float32) for shape in shapes), ["a", "b", "c"])
