"""The lines that a client of the OpenVINO file resizes with."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")

from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.export.prepare import lines

FORMS = [
    (64, 64, 0.875, "center", "bicubic"),
    (64, 64, 0.9, "center", "lanczos"),
    (48, 80, 0.9, "center", "bilinear"),
    (64, 64, 1.0, "squash", "bicubic"),
    (48, 80, 1.0, "border", "bicubic"),
    (50, 50, 0.9, "border", "nearest"),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("size", [(200, 120), (33, 91), (300, 40), (7, 5)], ids=str)
def test_they_show_what_the_evaluation_transform_shows(photo, form, size):
    transform, image, space = EvalTransform(*form, (0.3, 0.5, 0.7), (0.2, 0.2, 0.2)), photo(*size), {}

    exec(lines(transform), space)
    off = np.abs(space["prepare"](np.asarray(image)).astype(int) - transform(image))

    assert off.max() <= 2
    assert (off > 0).mean() < 0.01


def test_a_grey_picture_has_one_channel(photo):
    transform, space = EvalTransform(64, 64, 1.0, "center", "bicubic", (0.5,), (0.2,)), {}

    exec(lines(transform), space)

    assert space["prepare"](np.asarray(photo(90, 70).convert("L"))[..., None]).shape == (64, 64, 1)
