"""Files predicted: the same answers as the package gives, in order, from the cache where it has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from projects import Project

from graft.flows.serving import predict as predicting
from graft.flows.serving.known import known_features
from graft.flows.serving.loading import Predictor, open_model
from graft.flows.serving.predict import Answer, predict
from graft.flows.serving.sources import Named
from graft.tasks.common.core.paths import Paths
from graft.tasks.register.packaged_eyes import PackagedEyes


@pytest.fixture(scope="module")
def model(finished: Project) -> Iterator[Predictor]:
    with open_model("package", finished.root) as opened:
        yield opened


def raw(project: Project) -> list[Path]:
    return sorted((project.root / "data" / "raw").rglob("*.png"))


def named(files: Sequence[Path]) -> list[Named]:
    return [Named(file.name, file) for file in files]


def test_the_answers_are_those_of_the_package_and_in_order(finished: Project, model: Predictor) -> None:
    files = raw(finished)

    found = list(predict(model.classifier, named(files)))

    assert [answer.source.file for answer in found] == files
    for answer, expected in zip(found, model.classifier.predict(files), strict=True):
        assert answer.found["label"] == expected["label"]
        assert answer.found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def test_the_answers_are_those_of_the_report(finished: Project, model: Predictor) -> None:
    expected = pd.read_parquet(finished.root / "report" / "predictions.parquet")

    found = list(predict(model.classifier, named([finished.root / "data" / "raw" / path for path in expected["path"]])))

    assert [answer.found["label"] for answer in found] == expected["predicted"].tolist()


def test_blocks_do_not_show(finished: Project, model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    files = named(raw(finished)[:11])
    whole = list(predict(model.classifier, files))

    monkeypatch.setattr(predicting, "BLOCK", 4)

    assert [answer.found["label"] for answer in predict(model.classifier, files)] == [
        answer.found["label"] for answer in whole
    ]


def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    finished: Project, model: Predictor, tmp_path: Path
) -> None:
    good, wide = raw(finished)[0], tmp_path / "wide.png"
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    Image.new("RGB", (2000, 2)).save(wide)
    done: list[int] = []

    files = named([tmp_path / "text.png", good, tmp_path / "none.png", tmp_path, wide])
    found = list(predict(model.classifier, files, done=done.append))

    assert [bool(answer.found) for answer in found] == [False, True, False, False, False]
    assert [answer.error.partition(":")[0] for answer in found] == [
        "not an image",
        "",
        "No such file or directory",
        "Is a directory",
        "too elongated",
    ]
    assert sum(done) == 5


def test_features_of_the_stage_are_not_computed_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackagedEyes, "stream", forbidden)
    with open_model("package", project.root) as model, known_features(model) as known:
        found = list(predict(model.classifier, named(raw(project)), known))

    assert len(found) == len(raw(project))
    assert all(answer.found for answer in found)


def forbidden(*_: object) -> None:
    raise AssertionError("nothing is to be computed")


def test_what_was_computed_once_is_known_the_next_time(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = new_images(tmp_path, 3)
    with open_model("package", project.root) as model, known_features(model) as known:
        first = list(predict(model.classifier, named(files), known))
    monkeypatch.setattr(PackagedEyes, "stream", forbidden)
    with open_model("package", project.root) as model, known_features(model) as known:
        second = list(predict(model.classifier, named(files), known))

    assert same(first, second)


def test_a_damaged_segment_is_computed_again(project: Project, tmp_path: Path) -> None:
    files = new_images(tmp_path, 2)
    with open_model("package", project.root) as model, known_features(model) as known:
        first = list(predict(model.classifier, named(files), known))
    segments = list((Paths(project.root).cache / "features").rglob("*.safetensors"))
    assert segments
    for segment in segments:
        content = bytearray(segment.read_bytes())
        content[-1] ^= 1
        segment.chmod(0o644)
        segment.write_bytes(content)

    with open_model("package", project.root) as model, known_features(model) as known:
        assert same(first, list(predict(model.classifier, named(files), known)))


def test_a_damaged_file_is_not_kept_as_an_image(project: Project, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with open_model("package", project.root) as model, known_features(model) as known:
        for _ in range(2):
            assert [answer.error for answer in predict(model.classifier, named([tmp_path / "bad.png"]), known)] == [
                "not an image"
            ]


def test_another_form_of_the_features_is_not_taken_for_this_one(project: Project, tmp_path: Path) -> None:
    for note in (Paths(project.root).cache / "features").rglob("fingerprint.json"):
        facts = json.loads(note.read_text(encoding="utf-8"))
        note.chmod(0o644)
        note.write_text(json.dumps({**facts, "dtype": "float16"}), encoding="utf-8")

    with open_model("package", project.root) as model, known_features(model) as known:
        assert known is not None
        assert len(known) == 0
        assert len(list(predict(model.classifier, named(new_images(tmp_path, 2)), known))) == 2


def new_images(folder: Path, count: int) -> list[Path]:
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        Image.new("RGB", (20, 30), (number, 200, 7)).save(file)
    assert len({hashlib.md5(file.read_bytes()).hexdigest() for file in files}) == count
    return files


def same(first: list[Answer], second: list[Answer]) -> bool:
    return [answer.found["probabilities"] for answer in first] == [
        pytest.approx(answer.found["probabilities"], abs=1e-6) for answer in second
    ]
