import base64
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.load import load_linear_head
from graft.tasks.register.serving import ImageClassifier


@pytest.fixture(scope="module")
def model(finished_paths):
    return ImageClassifier(finished_paths.package)


@pytest.fixture(scope="module")
def file(finished_paths):
    return finished_paths.raw / "red" / "003.png"


def test_a_prediction_has_label_score_and_probabilities(model, file):
    (answer,) = model.predict([file])
    assert set(answer) == {"label", "score", "probabilities", "typicality"}
    assert answer["score"] == answer["probabilities"][answer["label"]] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_the_classes_are_the_heads(model, finished_paths):
    assert model.classes == read_feature_set(finished_paths.features).classes


def test_predictions_are_those_that_evaluate_saw(model, finished_paths):
    seen = pd.read_parquet(finished_paths.report / "predictions.parquet")
    answers = model.predict([finished_paths.raw / path for path in seen["path"]])
    p_NK = np.array([[answer["probabilities"][name] for name in model.classes] for answer in answers])
    assert np.allclose(p_NK, seen[[f"p_{name}" for name in model.classes]].to_numpy(), atol=1e-6)
    assert [answer["label"] for answer in answers] == list(seen["predicted"])


@pytest.fixture
def withholding(paths):
    """A package that abstains from all but the surest image of `files`, and the scores of these."""
    files = [paths.raw / name / f"{n:03}.png" for n in range(4) for name in ("red", "blue")]
    scores = sorted(answer["score"] for answer in ImageClassifier(paths.package).predict(files))
    replace(Calibration.load(paths.package), threshold=scores[-2], max_error=0.1).save(paths.package)
    return ImageClassifier(paths.package), files


def test_with_a_threshold_a_prediction_says_whether_to_take_it_for_an_answer(withholding):
    model, files = withholding
    answers = model.predict(files)
    assert [answer["abstain"] for answer in answers].count(False) == 1
    assert max(answers, key=lambda answer: answer["score"])["abstain"] is False
    assert all(
        set(answer) == set(model.columns) == {"label", "score", "probabilities", "abstain", "typicality"}
        for answer in answers
    )


def test_a_threshold_changes_no_label_and_no_score(withholding, model):
    other, files = withholding
    told = [{name: answer[name] for name in model.columns} for answer in other.predict(files)]
    assert [answer["label"] for answer in told] == [answer["label"] for answer in model.predict(files)]
    assert np.allclose([a["score"] for a in told], [a["score"] for a in model.predict(files)])


def test_a_label_is_decided_by_the_class_weights_and_the_score_is_its_probability(paths, file):
    replace(Calibration(), decision_weights=[1e200, 1.0, 1.0]).save(paths.package)
    (answer,) = ImageClassifier(paths.package).predict([file])
    assert answer["label"] == "blue"
    assert answer["score"] == answer["probabilities"]["blue"] < answer["probabilities"]["red"]


@pytest.mark.parametrize(("least", "classes"), [(1.0, 1), (0.0, 3)])
def test_a_prediction_set_has_the_label_and_as_many_classes_as_its_confidence_needs(paths, file, least, classes):
    replace(Calibration(), set_least=least, set_confidence=0.9).save(paths.package)
    (answer,) = ImageClassifier(paths.package).predict([file])
    assert len(answer["set"]) == classes
    assert answer["set"][0] == answer["label"]
    assert answer["set"] == sorted(answer["set"], key=answer["probabilities"].get, reverse=True)


def test_images_of_the_same_kind_are_more_typical_than_noise(paths, model, file, noise):
    stream = io.BytesIO()
    noise(32, 32, seed=5, spread=120).save(stream, "PNG")
    known, strange = model.predict([file, stream.getvalue()])
    assert 0 < strange["typicality"] < known["typicality"] <= 1


def test_a_package_without_a_reference_says_nothing_of_the_kind(paths, file):
    (paths.package / "reference.safetensors").unlink()
    model = ImageClassifier(paths.package)
    (answer,) = model.predict([file])
    assert list(answer) == model.columns == ["label", "score", "probabilities"]


def test_a_package_without_a_calibration_gives_the_heads_own_probabilities(paths):
    (paths.package / "calibration.json").unlink()
    pack = read_feature_set(paths.features)
    p_NK = load_linear_head(paths.head).predict_proba(pack.stored_ND[:1])
    (answer,) = ImageClassifier(paths.package).predict([paths.raw / pack.index["path"].iloc[0]])
    assert np.allclose(list(answer["probabilities"].values()), p_NK[0], atol=1e-6)


FORMS = {
    "bytes": lambda f: f.read_bytes(),
    "bytearray": lambda f: bytearray(f.read_bytes()),
    "memoryview": lambda f: memoryview(f.read_bytes()),
    "base64": lambda f: base64.b64encode(f.read_bytes()).decode(),
    "data URL": lambda f: "data:image/png;base64," + base64.b64encode(f.read_bytes()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_is_predicted_as_its_path_is(model, file, form):
    assert model.predict([FORMS[form](file)]) == model.predict([file])


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_a_tiny_image_in_base64_is_not_taken_for_a_files_name(model, form):
    image = Image.new("RGB", (12, 12))  # in BMP mostly zeros: more letters in a row than a file's name may have
    image.putpixel((0, 0), (9, 9, 9))
    stream = io.BytesIO()
    image.save(stream, form)
    text = base64.b64encode(stream.getvalue()).decode()
    assert model.predict([text]) == model.predict([stream.getvalue()])


def test_a_string_is_never_opened_as_a_file_or_an_address(model, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "abcd").write_bytes(file.read_bytes())  # a name that is base64 as well
    with pytest.raises(ValueError, match="cannot identify"):
        model.predict(["abcd"])
    for text in (str(file), file.as_uri(), "http://127.0.0.1:9/a.png", "data:," + str(file)):
        with pytest.raises(ValueError, match="is not base64; a string is never opened"):
            model.predict([text])


def test_images_are_answered_in_order(model, finished_paths):
    files = [finished_paths.raw / name / f"{n:03}.png" for n in range(10) for name in ("red", "blue", "green")]
    together = model.predict(files)
    alone = [model.predict([file])[0] for file in files]
    assert [a["label"] for a in together] == [a["label"] for a in alone]
    assert np.allclose([a["score"] for a in together], [a["score"] for a in alone], atol=1e-6)


def test_no_image_is_answered_with_nothing(model):
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"not an image", "cannot identify"),
        ("no/such/file.png", "is not base64"),
        (7, "bytes or base64 is needed, got int"),
        (None, "got NoneType"),
        ("", "cannot identify"),
        (base64.b64encode(b"not an image").decode(), "cannot identify"),
        ("ünïcode", "input 1"),
    ],
    ids=["bytes", "path", "number", "nothing", "empty", "base64", "letters"],
)
def test_an_entry_that_is_no_image_is_refused_with_its_place(model, file, image, message):
    with pytest.raises(ValueError, match=r"input 1 is not an image that can be read") as caught:
        model.predict([file, image])
    assert message in str(caught.value)


def test_a_grey_image_and_one_with_transparency_are_predicted(model, noise):
    for mode in ("L", "RGBA"):
        stream = io.BytesIO()
        noise(40, 40).convert(mode).save(stream, "PNG")
        assert model.predict([stream.getvalue()])[0]["label"] in model.classes


def test_an_image_on_its_side_is_predicted_as_the_upright_one(model, noise):
    upright = noise(60, 40, centre=(40, 60, 200))
    lying, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    contents = []
    for image, options in ((upright, {}), (lying, {"exif": exif})):
        stream = io.BytesIO()
        image.save(stream, "PNG", **options)
        contents.append(stream.getvalue())
    one, two = model.predict(contents)
    assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-6)


def test_an_image_too_large_to_open_is_refused_with_its_place(model, file, noise, monkeypatch):
    stream = io.BytesIO()
    noise(60, 60).save(stream, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1700)
    with pytest.raises(ValueError, match=r"input 1 is not an image that can be read.*decompression bomb"):
        model.predict([file, stream.getvalue()])
