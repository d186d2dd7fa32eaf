import base64

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.flows.serving.heat_maps import HeatMaps, decoded_picture
from graft.flows.serving.predict import predict
from graft.flows.serving.sources import Named
from graft.tasks.register.serving import ImageClassifier


@pytest.fixture(scope="module")
def model(segmented_paths):
    return ImageClassifier(segmented_paths.package)


@pytest.fixture
def expected(segmented_paths):
    return pd.read_parquet(segmented_paths.report / "predictions.parquet")


def test_the_package_predicts_the_marked_share_that_evaluate_found(model, expected, segmented_paths):
    found = model.predict([segmented_paths.raw / path for path in expected["path"]])
    assert set(found[0]) == {"value", "typicality"}
    assert np.allclose([one["value"] for one in found], expected["value"], atol=1e-4)


def test_the_decoded_mask_comes_with_the_answer_if_asked_for(model, expected, segmented_paths):
    content = base64.b64encode((segmented_paths.raw / expected["path"].iloc[0]).read_bytes()).decode()
    (found,) = model.predict([content], maps=True)
    assert found["map"].shape == (64, 64)
    assert (found["map"] >= model.threshold).mean() == pytest.approx(found["value"])


def test_masks_are_written_in_the_size_of_the_images(model, expected, segmented_paths, tmp_path):
    named = [Named(path, segmented_paths.raw / path) for path in expected["path"]]
    writer = HeatMaps(model, tmp_path / "masks")
    for answer in predict(model, named, maps=True):
        writer.take(answer)
    masks = sorted((tmp_path / "masks").iterdir())
    assert len(masks) == len(named)
    with Image.open(masks[0]) as mask:
        assert mask.size == (48, 40)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_a_decoded_image_is_written_in_colour_and_in_its_size():
    decoded = np.zeros((8, 8, 3), np.float32)
    decoded[..., 1] = 0.4
    pixels = decoded_picture(decoded, float("inf"), (20, 30))
    assert pixels.shape == (20, 30, 3)
    assert (pixels == (0, 102, 0)).all()


def test_images_unlike_those_learned_from_have_a_low_typicality(model, expected, segmented_paths, tmp_path):
    odd = tmp_path / "odd.png"
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))).save(odd)
    usual = [segmented_paths.raw / path for path in expected["path"]]
    answers = model.predict([odd, *usual])
    assert answers[0]["typicality"] < np.median([one["typicality"] for one in answers[1:]])


def test_the_exported_file_answers_as_the_package_does(expected, segmented_paths, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
    pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")
    from graft.tasks.export.facts import Origin
    from graft.tasks.export.write import export

    images = [segmented_paths.raw / path for path in expected["path"]]
    for kind, name in (("onnx", "model.onnx"), ("openvino", "model.xml")):
        done = export(segmented_paths.package, tmp_path / name, kind, images, Origin("graft"))
        assert done.proof.images == len(images)
        assert "what is decoded" in (tmp_path / f"{name}.README.md").read_text()


def test_a_decoder_is_not_exported_in_8_bits(expected, segmented_paths, tmp_path):
    pytest.importorskip("nncf", reason="needs the extra graft[int8]")
    from graft.tasks.common.core.errors import GraftError
    from graft.tasks.export.quantise import Exam, check_enough

    images = [segmented_paths.raw / path for path in expected["path"]]
    with pytest.raises(GraftError, match="not exported in 8 bits"):
        check_enough(segmented_paths.package, Exam(images, images, ["x"] * len(images), np.arange(len(images)), 1.0))


def test_decoded_images_are_not_sorted_into_classes(model, tmp_path):
    from graft.flows.serving.sorting import sorter_for
    from graft.tasks.common.core.errors import GraftError

    with pytest.raises(GraftError, match="cannot be sorted by a number"):
        sorter_for(model, tmp_path / "sorted", link=False)
