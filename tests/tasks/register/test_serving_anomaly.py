"""A packaged model that detects anomalies."""

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.register import serving
from graft.tasks.register.package import copy_code
from graft.tasks.register.packaged_eyes import LARGEST, halved
from graft.tasks.register.serving import ImageClassifier


@pytest.fixture(scope="module")
def model(anomalies):
    return ImageClassifier(anomalies / "package")


def files(folder):
    return sorted(folder.iterdir())


def test_an_answer_has_a_score_a_p_value_and_whether_it_is_anomalous(model, anomalies):
    answers = model.predict(files(anomalies / "defect"))

    assert all(list(answer) == model.columns == ["score", "p_value", "anomalous"] for answer in answers)
    assert all(answer["anomalous"] for answer in answers)
    assert max(answer["p_value"] for answer in answers) == pytest.approx(1 / 9), "of 8 held-out good images"


def test_an_image_is_anomalous_if_its_score_is_above_the_threshold(model, anomalies):
    answers = model.predict(files(anomalies / "good"))

    assert model.threshold == Calibration.load(anomalies / "package").threshold
    assert [answer["anomalous"] for answer in answers] == [answer["score"] > model.threshold for answer in answers]
    assert not any(answer["anomalous"] for answer in answers[:8]), "the threshold is the largest of these scores"


def test_constant_pictures_of_any_size_and_aspect_have_finite_scores_and_maps(model, tmp_path):
    sizes = [(300, 50), (50, 300), (40, 40), (500, 333)]
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (0, 0, 0) if number % 2 else (255, 255, 255)).save(tmp_path / f"{number}.png")

    answers = model.predict(files(tmp_path), maps=True)

    assert np.isfinite([answer["score"] for answer in answers]).all()
    assert all(np.isfinite(answer["map"]).all() for answer in answers)
    assert all(0 < answer["p_value"] <= 1 for answer in answers)


def test_blocks_do_not_show_and_bound_the_features_in_memory(model, anomalies, monkeypatch):
    images = files(anomalies / "good")
    whole, sizes, answers = model.predict(images, maps=True), [], model.answers
    monkeypatch.setattr(serving, "BLOCK_BYTES", 4 * model.dimension * 5)
    monkeypatch.setattr(model, "answers", lambda features: sizes.append(len(features)) or answers(features))

    found = model.predict(images, maps=True)

    assert sizes == [5, 5, 5, 5, 4]
    assert [answer["score"] for answer in found] == pytest.approx([answer["score"] for answer in whole], rel=1e-4)
    assert all(np.allclose(one["map"], other["map"], rtol=1e-3) for one, other in zip(found, whole, strict=True))


def test_a_map_is_highest_where_the_defect_is(model, anomalies):
    (answer,) = model.predict(files(anomalies / "defect")[:1], maps=True)

    height, width = answer["map"].shape
    assert (height, width) == (model.eyes.transform.height, model.eyes.transform.width)
    row, column = np.unravel_index(answer["map"].argmax(), (height, width))
    assert 20 / 60 < row / height < 34 / 60
    assert 20 / 90 < column / width < 34 / 90


def test_an_image_without_a_place_for_it_is_named_by_its_number(model, anomalies):
    with pytest.raises(ValueError, match="input 1 is not an image"):
        model.predict([files(anomalies / "good")[0], b"text"])


def test_models_for_other_tasks_have_no_maps(finished_paths):
    other = ImageClassifier(finished_paths.package)

    assert other.threshold == float("inf")
    with pytest.raises(ValueError, match="a model for classification has no maps"):
        other.heat(np.zeros((1, other.dimension), np.float32))


def test_maps_are_rounded_as_the_cache_rounds_them_and_keep_within_its_range():
    maps = np.array([[0.1, 1e6, -1e6]], np.float32)

    assert halved(maps).tolist() == [[float(np.float16(0.1)), LARGEST, -LARGEST]]
    assert halved(maps).dtype == np.float32


def test_the_summary_of_a_map_is_the_mean_over_its_places(model, anomalies):
    maps_ND = model.features(files(anomalies / "good")[:3])
    decode = lambda i: model.eyes.reading.file(files(anomalies / "good")[i])  # noqa: E731

    found = model.eyes.summaries(decode, 3)

    assert found.shape == (3, model.eyes.form.channels)
    assert np.allclose(found, model.eyes.form.patches(maps_ND).mean(axis=1), atol=1e-5)


def test_the_code_of_a_package_has_what_its_head_needs(tmp_path, anomalies):
    code = tmp_path / copy_code(tmp_path)

    assert {"anomaly.py", "gaussian.py", "patches.py", "subspace.py"} <= {
        file.name for file in (code / "common" / "heads").iterdir()
    }
