"""Models that detect anomalies: every door gives the same answer, and maps that are known are not computed again."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import PIL
import pytest

from graft.flows.python.model import Model
from graft.flows.serving.known import known_features
from graft.flows.serving.loading import Predictor
from graft.flows.serving.predict import predict
from graft.flows.serving.sources import Named
from graft.tasks.common.core.files import read_json, write_json
from graft.tasks.common.feature_cache.segments import FeatureCache, ids_of
from graft.tasks.register.packaged_eyes import PackagedEyes
from graft.tasks.register.serving import ImageClassifier
from graft.tasks.register.stage import predict_in_fresh_process


def files_in(folder: Path) -> list[Path]:
    return [*sorted((folder / "good").iterdir())[:5], *sorted((folder / "defect").iterdir())]


def test_files_python_and_the_package_alone_agree(anomalies: Path) -> None:
    files, classifier = files_in(anomalies), ImageClassifier(anomalies / "package")
    expected = [answer["score"] for answer in classifier.predict(files)]

    by_files = predict(classifier, [Named(file.name, file) for file in files])
    in_python = Model("package", [], classifier).predict(files).table
    alone, _ = predict_in_fresh_process(anomalies / "package", [str(file) for file in files])

    assert [answer.found["score"] for answer in by_files] == pytest.approx(expected, abs=1e-4)
    assert in_python["score"].tolist() == pytest.approx(expected, abs=1e-4)
    assert alone["score"].tolist() == pytest.approx(expected, abs=1e-4)
    assert alone["anomalous"].tolist() == in_python["anomalous"].tolist()


@pytest.fixture
def model(anomalies: Path, tmp_path: Path) -> Predictor:
    """In a project whose stage `features` has computed maps with the digest `known`, of no image yet."""
    package = Path(shutil.copytree(anomalies / "package", tmp_path / "package"))
    write_json(package / "package.json", {**read_json(package / "package.json"), "fingerprint": "known"})
    write_json(package / "reference.json", {"images": 0, "fingerprint": "known"})
    note = {"dtype": "float16", "engine": "openvino", "decoder": f"pillow {PIL.__version__}"}
    cache = tmp_path / ".graft" / "cache" / "features" / "known"
    cache.mkdir(parents=True)
    write_json(cache / "fingerprint.json", note)
    facts = read_json(package / "package.json")
    return Predictor("graft", "", "here", package, ImageClassifier(package), facts, tmp_path)


def cache_of(model: Predictor) -> FeatureCache:
    assert model.root is not None
    folder = model.root / ".graft" / "cache" / "features" / "known"
    return FeatureCache(folder, model.classifier.dimension, "float16")


def test_known_maps_are_read_and_give_the_same_answers(
    model: Predictor, anomalies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_in(anomalies)
    named, expected = [Named(file.name, file) for file in files], model.classifier.predict(files)
    ids = ids_of([hashlib.md5(file.read_bytes()).hexdigest() for file in files])
    with cache_of(model) as cache:
        cache.add(ids, model.classifier.features(files))
    monkeypatch.setattr(PackagedEyes, "stream", None)

    with known_features(model) as known:
        found = [answer.found["score"] for answer in predict(model.classifier, named, known)]

    assert found == pytest.approx([answer["score"] for answer in expected], rel=1e-6)


def test_maps_of_other_pictures_are_not_kept(model: Predictor, anomalies: Path) -> None:
    with known_features(model) as known:
        answers = list(predict(model.classifier, [Named("a.png", files_in(anomalies)[0])], known))

    assert answers[0].found
    assert len(cache_of(model)) == 0
