"""The preprocessing of the ONNX file does what the evaluation transform does."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.export.builder import Builder
from graft.tasks.export.resize import network_pixels

SIZES = [(64, 64), (200, 120), (120, 201), (33, 91), (300, 40), (40, 333), (7, 5), (97, 64)]
FORMS = [
    (64, 64, 0.875, "center", "bicubic"),
    (64, 64, 1.0, "center", "bilinear"),
    (64, 64, 0.9, "center", "nearest"),
    (48, 80, 0.9, "center", "bicubic"),
    (64, 64, 1.0, "squash", "bicubic"),
    (48, 80, 1.0, "border", "bicubic"),
    (50, 50, 0.9, "border", "bilinear"),
]


def transform_of(height, width, share, mode, interpolation, channels=3):
    return EvalTransform(height, width, share, mode, interpolation, (0.3, 0.5, 0.7)[:channels], (0.2,) * channels)


def shown(run_onnx, transform, pixels):
    build = Builder()
    value = network_pixels(build, "picture", transform)
    like = np.empty((1, transform.height, transform.width, transform.channels), np.uint8)
    return run_onnx(build, {"picture": pixels}, value, like)[0]


def check_alike(found, expected):
    off = np.abs(found.astype(int) - expected)
    assert found.shape == expected.shape
    assert off.max() <= 2
    assert (off > 0).mean() < 0.02


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_picture_of_any_size_is_shown_as_pillow_would(photo, run_onnx, form, size):
    transform, image = transform_of(*form), photo(*size)

    check_alike(shown(run_onnx, transform, np.asarray(image)), transform(image))


def test_nearest_takes_the_very_pixels_that_pillow_takes(photo, run_onnx):
    transform = transform_of(64, 64, 0.9, "center", "nearest")

    for size in SIZES:
        assert np.array_equal(shown(run_onnx, transform, np.asarray(photo(*size))), transform(photo(*size)))


def test_a_grey_picture_has_one_channel(photo, run_onnx):
    transform, image = transform_of(64, 64, 0.875, "center", "bicubic", channels=1), photo(120, 90).convert("L")

    check_alike(shown(run_onnx, transform, np.asarray(image)[..., None]), transform(image))


def test_the_passes_run_in_the_order_of_pillow(run_onnx):
    noise = np.random.default_rng(0).integers(0, 256, (500, 60, 3), dtype=np.uint8)  # vertical first, from Pillow 13 on
    transform = transform_of(48, 80, 1.0, "squash", "bicubic")

    check_alike(shown(run_onnx, transform, noise), transform(Image.fromarray(noise)))


def test_lanczos_is_refused():
    with pytest.raises(GraftError, match="lanczos"):
        network_pixels(Builder(), "picture", transform_of(64, 64, 0.875, "center", "lanczos"))
