"""Predictions, by a model whose files are those that were made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import Project

import graft
from graft.flows.python.images import Images
from graft.tasks.common.core.errors import DataError, GraftError


@pytest.fixture(scope="module")
def model(finished: Project) -> graft.Model:
    return graft.open(finished.root).model()


def red(finished: Project, number: int = 0):
    return finished.root / "data" / "raw" / "red" / f"{number:03}.png"


def test_an_image_is_predicted_whatever_it_is_given_as(finished: Project, model: graft.Model) -> None:
    path = red(finished)
    image = Image.open(path)

    found = model.predict([path, str(path), path.read_bytes(), image, np.asarray(image)])

    assert found.table["label"].tolist() == ["red"] * 5
    assert len(found.probabilities.round(6).drop_duplicates()) == 1
    assert found.table["image"].tolist() == [str(path), str(path), "image 2", "image 3", "image 4"]


def test_one_image_needs_no_list_and_a_folder_is_all_images_in_it(finished: Project, model: graft.Model) -> None:
    assert len(model.predict(red(finished))) == 1
    assert model.predict(red(finished).parent).table["label"].tolist() == ["red"] * 14


def test_probabilities_have_a_column_for_each_class_and_sum_to_one(finished: Project, model: graft.Model) -> None:
    found = model.predict(red(finished).parent)

    assert found.probabilities.columns.tolist() == model.classes == ["blue", "green", "red"]
    assert found.probabilities.sum(axis=1).tolist() == pytest.approx([1.0] * 14)


def test_predictions_are_those_of_the_report(finished: Project, model: graft.Model) -> None:
    report = graft.open(finished.root).report().predictions

    found = model.predict([finished.root / "data" / "raw" / path for path in report["path"]])

    assert found.table["label"].tolist() == report["predicted"].tolist()


def test_two_threads_may_use_one_model(finished: Project, model: graft.Model) -> None:
    folders = [finished.root / "data" / "raw" / name for name in model.classes] * 4

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.predict, folders))

    assert [{*each.table["label"]} for each in found] == [{folder.name} for folder in folders]


def test_predictions_in_a_notebook_show_the_images(finished: Project, model: graft.Model) -> None:
    shown = model.predict([red(finished), red(finished, 1)])._repr_html_()

    assert shown.count("<img") == 2
    assert "2 predictions" in shown


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_encoded_as_a_file_that_can_be_decoded(model: graft.Model, mode: str) -> None:
    picture = Image.new("RGB", (40, 40), (200, 10, 10)).convert("L" if mode == "I;16" else mode).convert(mode)

    assert len(model.predict(picture)) == 1


def test_floats_need_the_range_that_the_project_did_not_give(model: graft.Model) -> None:
    with pytest.raises(DataError, match=r"preprocess\.range"):
        model.predict(Image.new("F", (40, 40), 0.5))


def test_a_grey_array_is_a_grey_picture(model: graft.Model) -> None:
    assert len(model.predict(np.full((40, 40), 100, np.uint8))) == 1


def test_an_image_that_cannot_be_read_is_named(finished: Project, model: graft.Model, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")

    with pytest.raises(DataError, match=r"b\.png: input 1 is not an image"):
        model.predict([red(finished), tmp_path / "b.png"])


@pytest.mark.parametrize("images", [[], [3], None])
def test_what_is_no_image_is_refused(model: graft.Model, images: object) -> None:
    with pytest.raises(DataError, match="image"):
        model.predict(images)  # type: ignore[arg-type]


def test_a_file_that_does_not_exist_is_named(model: graft.Model, tmp_path) -> None:
    with pytest.raises(DataError, match=r"none\.png"):
        model.predict(tmp_path / "none.png")


def test_images_in_memory_are_encoded_one_at_a_time() -> None:
    images = Images(Image.new("RGB", (8, 8)) for _ in range(3))

    assert len(images) == 3
    assert images[2].startswith(b"\x89PNG")


def test_a_changed_package_is_not_loaded(project: Project) -> None:
    file = project.root / "models" / "package" / "package.json"
    file.chmod(0o644)
    file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")

    with pytest.raises(GraftError, match=r"(?s)not those that dvc\.lock names.*dvc checkout models/package"):
        graft.open(project.root).model()


def test_without_a_package_the_error_says_what_makes_it(empty_project: Project) -> None:
    with pytest.raises(GraftError, match="graft repro"):
        graft.open(empty_project.root).predict("a.png")


def test_a_registered_version_predicts_by_alias_or_number(project: Project) -> None:
    images = red(project)
    opened = graft.open(project.root)

    assert opened.model("champion").name == "graft version 1"
    assert opened.predict(images, 1).table["label"].tolist() == ["red"]


def test_a_version_that_does_not_exist_is_refused(project: Project) -> None:
    with pytest.raises(GraftError, match="has no version `7`"):
        graft.open(project.root).model(7)
