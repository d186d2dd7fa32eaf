"""Heat maps on disk: `graft predict --maps`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import Project

from graft.flows.serving.heat_maps import HeatMaps, below
from graft.flows.serving.loading import open_model
from graft.flows.serving.predict import predict
from graft.flows.serving.saliency import saliency
from graft.flows.serving.sources import Named
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.register.serving import ImageClassifier


@pytest.fixture(scope="module")
def model(anomalies: Path) -> ImageClassifier:
    return ImageClassifier(anomalies / "package")


def is_coloured(pixels: np.ndarray) -> np.ndarray:
    return np.ptp(pixels.astype(int), axis=2) > 20


def test_each_image_gets_a_picture_coloured_where_it_is_anomalous(
    model: ImageClassifier, anomalies: Path, tmp_path: Path
) -> None:
    files = [anomalies / "good" / "00.png", anomalies / "defect" / "00.png", tmp_path / "none.png"]
    maps = HeatMaps(model, tmp_path / "maps")

    for answer in predict(model, [Named(f"{file.parent.name}/{file.name}", file) for file in files], maps=True):
        maps.take(answer)

    written = sorted(file.relative_to(tmp_path / "maps").as_posix() for file in (tmp_path / "maps").rglob("*.png"))
    assert written == ["defect/00.png", "good/00.png"]
    good, defect = (np.asarray(Image.open(tmp_path / "maps" / name)) for name in ("good/00.png", "defect/00.png"))
    assert good.shape == defect.shape == (60, 90, 3)
    assert is_coloured(defect)[20:34, 20:34].all()
    assert is_coloured(good).mean() < 0.1


def test_two_images_with_one_name_but_for_its_end_are_both_kept(
    model: ImageClassifier, anomalies: Path, tmp_path: Path
) -> None:
    file, maps = anomalies / "good" / "00.png", HeatMaps(model, tmp_path)

    for answer in predict(model, [Named("a.jpg", file), Named("a.bmp", file)], maps=True):
        maps.take(answer)

    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.bmp.png", "a.png"]


def test_a_folder_that_cannot_be_written_is_named(model: ImageClassifier, anomalies: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (answer,) = predict(model, [Named("a.png", anomalies / "good" / "00.png")], maps=True)

    with pytest.raises(DataError, match=r"the map of a\.png cannot be written"):
        HeatMaps(model, tmp_path / "file").take(answer)


def test_a_model_for_another_task_has_none(finished: Project, tmp_path: Path) -> None:
    with open_model("package", finished.root) as other, pytest.raises(GraftError, match="has no maps"):
        HeatMaps(other.classifier, tmp_path)


def test_a_map_of_a_part_lies_over_that_part(model: ImageClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = (Image.new("RGB", (300, 100)),)
    assert below(model, picture).shape == (100, 300, 3)

    center = replace(model.eyes.transform, crop_mode="center")
    monkeypatch.setattr(model.eyes, "_transforms", [center])

    assert below(model, picture).shape == (center.height, center.width, 3)


def test_the_saliency_of_an_anomaly_is_its_heat_map(model: ImageClassifier, anomalies: Path) -> None:
    found = np.asarray(saliency(model, (anomalies / "defect" / "00.png").read_bytes()))

    assert found.shape == (60, 90, 3)
    assert is_coloured(found)[20:34, 20:34].all()
