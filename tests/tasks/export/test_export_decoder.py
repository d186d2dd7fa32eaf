"""A decoder in ONNX decodes what it does in the package."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")

from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.decoder import DecoderHead, Plan
from graft.tasks.common.heads.typicality import Typicality
from graft.tasks.export.answers import answers_of
from graft.tasks.export.builder import Builder

PLANS = {
    "pyramid": Plan.of([(3, 8, 6), (4, 4, 3)], (3, 32, 24), 4, 8),
    "odd sizes": Plan.of([(3, 9, 7), (4, 5, 4)], (1, 33, 27), 4, 8),
    "one map": Plan.of([(5, 6, 6)], (1, 12, 12), 4, 8),
}


def decoder(plan, target):
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in plan.shapes().items()}
    return DecoderHead(plan, weights, target, 0.45)


def maps_of(plan):
    return np.random.default_rng(1).normal(size=(4, plan.dimension)).astype(np.float32)


def answered(run_onnx, head, name, expected, known=None):
    build = Builder()
    values = {one.name: one.value for one in answers_of(build, head, Calibration(), known, "features")}
    return run_onnx(build, {"features": maps_of(head.plan)}, values[name], expected)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_image_is_that_of_the_package(run_onnx, plan):
    head = decoder(plan, "image")
    expected = head.images(maps_of(plan))
    assert np.allclose(answered(run_onnx, head, "image", expected), expected, atol=1e-5)


@pytest.mark.parametrize("target", ["image", "mask"])
def test_the_value_is_that_of_the_package(run_onnx, target):
    head = decoder(PLANS["pyramid" if target == "image" else "odd sizes"], target)
    expected = head.output(maps_of(head.plan))[:, 0]
    assert np.allclose(answered(run_onnx, head, "value", expected), expected, atol=2e-3 if target == "mask" else 1e-5)


def test_the_typicality_is_that_of_the_means_over_places(run_onnx):
    head, rng = decoder(PLANS["pyramid"], "image"), np.random.default_rng(2)
    known = Typicality.of(rng.normal(size=(30, 7)), np.arange(30))
    maps, means = maps_of(head.plan), []
    for start, (c, h, w) in ((0, (3, 8, 6)), (144, (4, 4, 3))):
        means.append(maps[:, start : start + c * h * w].reshape(-1, c, h, w).mean(axis=(2, 3)))
    expected = known.p_values(np.hstack(means))
    assert np.allclose(answered(run_onnx, head, "typicality", expected, known), expected, atol=1e-5)
