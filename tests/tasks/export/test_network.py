"""Networks computed by ONNX Runtime give the features that OpenVINO gives."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")

import openvino as ov

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.export.builder import Builder
from graft.tasks.export.network import features_of

FAMILIES = ("test_efficientnet", "test_resnet", "test_vit", "test_convnext", "test_byobnet", "test_nfnet")


@pytest.mark.parametrize("backbone", FAMILIES)
def test_features_are_those_of_the_package(graph_of, run_onnx, backbone):
    graph = graph_of(backbone)
    engine = Engine(graph.xml)
    pixels = np.random.default_rng(0).integers(0, 256, (1, engine.height, engine.width, 3), dtype=np.uint8)

    expected = engine(pixels)

    build = Builder()
    found = run_onnx(build, {"pixels": pixels}, features_of(build, graph.xml, "pixels"), expected)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_an_operation_that_is_not_known_is_named(tmp_path):
    pixels = ov.opset13.parameter([-1, 4, 4, 3], ov.Type.u8)
    summed = ov.opset13.cum_sum(ov.opset13.convert(pixels, "f32"), ov.opset13.constant(1))
    ov.save_model(ov.Model([summed], [pixels], "model"), tmp_path / "graph.xml")

    with pytest.raises(GraftError, match="CumSum"):
        features_of(Builder(), tmp_path / "graph.xml", "pixels")
