"""Operations that no network of the tests has, each against OpenVINO."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")

import openvino as ov
from openvino import opset13 as op

from graft.tasks.common.core.errors import GraftError
from graft.tasks.export.builder import Builder
from graft.tasks.export.network import features_of

SHAPE = (1, 4, 6, 8)
RNG = np.random.default_rng(0)


def weights(*shape):
    return op.constant(RNG.normal(size=shape).astype(np.float32))


def attention(x, *mask):
    return op.scaled_dot_product_attention(x, x, x, *mask)


def grouped(x, padding="explicit"):
    return op.group_convolution(x, weights(2, 3, 2, 3, 3), [2, 1], [0, 1], [1, 1], [1, 1], padding)


def max_pool(x, rounding="floor"):
    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], rounding).output(0)


def average_pool(x, exclude):
    return op.avg_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], exclude)


def interpolated(x, mode, padding=None):
    form = {"coordinate_transformation_mode": "half_pixel", "cube_coeff": -0.75}
    return op.interpolate(x, op.constant([9, 16]), mode, "sizes", padding, axes=op.constant([2, 3]), **form)


HALF = op.constant(np.float32(0.5))
KEEP = op.constant(np.array([[True] * 5 + [False]] * 6))
CASES = {
    "attention": attention,
    "attention with a mask": lambda x: attention(x, weights(6, 6)),
    "attention with a mask of booleans": lambda x: attention(x, KEEP),
    "average pool, padding counted": lambda x: average_pool(x, False),
    "average pool, padding not counted": lambda x: average_pool(x, True),
    "clamp": lambda x: op.clamp(x, -0.5, 0.75),
    "gelu": lambda x: op.gelu(x, "erf"),
    "gelu by tanh": lambda x: op.gelu(x, "tanh"),
    "grouped convolution": grouped,
    "grouped convolution of the same size": lambda x: grouped(x, "same_upper"),
    "hard sigmoid": op.hsigmoid,
    "hard swish": op.hswish,
    "matmul, first turned": lambda x: op.matmul(x, x, True, False),
    "matmul, second turned": lambda x: op.matmul(x, x, False, True),
    "max pool": max_pool,
    "max pool, rounded up": lambda x: max_pool(x, "ceil"),
    "mish": op.mish,
    "normalised over channels": lambda x: op.mvn(x, [1], True, 1e-5, "inside_sqrt"),
    "normalised over the last axes": lambda x: op.mvn(x, [2, 3], True, 1e-5, "inside_sqrt"),
    "interpolated": lambda x: interpolated(x, "linear_onnx"),
    "interpolated by cubic curves": lambda x: interpolated(x, "cubic"),
    "interpolated by the nearest": lambda x: interpolated(x, "nearest"),
    "padded with a number": lambda x: op.pad(x, [0, 0, 1, 2], [0, 0, 0, 1], "constant", HALF),
    "padded with a mirror": lambda x: op.pad(x, [0, 0, 1, 2], [0, 0, 0, 1], "reflect"),
    "prelu": lambda x: op.prelu(x, weights(4)),
    "rolled": lambda x: op.roll(x, [1, -2], [2, 3]),
    "sliced backwards": lambda x: op.slice(x, [5], [0], [-2], [2]),
    "softmax": lambda x: op.softmax(x, 2),
    "split": lambda x: op.variadic_split(x, 3, [5, 3]).output(1),
    "squeezed": lambda x: op.squeeze(op.reduce_mean(x, 3, True), 3),
    "swish": op.swish,
    "swish with a factor": lambda x: op.swish(x, HALF),
    "turned": lambda x: op.transpose(x, [0, 2, 3, 1]),
}


def saved(folder, make):
    pixels = op.parameter([-1, *SHAPE[1:]], ov.Type.u8)
    x = op.sin(op.convert(pixels, "f32"))
    ov.save_model(ov.Model([make(x)], [pixels], "model"), folder / "graph.xml", compress_to_fp16=False)
    return folder / "graph.xml"


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_it_computes_what_openvino_computes(tmp_path, run_onnx, make):
    graph, pixels = saved(tmp_path, make), RNG.integers(0, 256, SHAPE, dtype=np.uint8)
    expected = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pixels)[0]

    build = Builder()
    found = run_onnx(build, {"pixels": pixels}, features_of(build, graph, "pixels"), expected)

    assert np.allclose(found, expected, atol=1e-4)


def test_interpolated_maps_are_not_padded(tmp_path):
    graph = saved(tmp_path, lambda x: interpolated(x, "linear_onnx", [0, 0, 1, 1]))

    with pytest.raises(GraftError, match="Interpolate"):
        features_of(Builder(), graph, "pixels")


def test_a_form_of_an_operation_that_onnx_does_not_have_is_refused(tmp_path):
    graph = saved(tmp_path, lambda x: op.pad(x, [0, 0, 1, 1], [0, 0, 1, 1], "symmetric"))

    with pytest.raises(GraftError, match="Pad: mode symmetric"):
        features_of(Builder(), graph, "pixels")
