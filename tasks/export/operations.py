"""The operations of OpenVINO's graphs in ONNX. Shapes are known: the graph has been given one picture.

Each function takes the builder, the operation and the names of its inputs, and returns the name of its output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from ..common.core.errors import GraftError
from .builder import Builder

Operation = Any
"""openvino.Node"""

Translation = Callable[[Builder, Operation, list[str]], str]

_PLAIN = {
    "Abs": "Abs",
    "Add": "Add",
    "Ceiling": "Ceil",
    "Cos": "Cos",
    "Divide": "Div",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "Log": "Log",
    "Maximum": "Max",
    "Minimum": "Min",
    "Multiply": "Mul",
    "Negative": "Neg",
    "Power": "Pow",
    "Relu": "Relu",
    "Sigmoid": "Sigmoid",
    "Sin": "Sin",
    "SoftPlus": "Softplus",
    "Sqrt": "Sqrt",
    "Subtract": "Sub",
    "Tanh": "Tanh",
    "HSwish": "HardSwish",
}
"""OpenVINO's name -> ONNX's, of operations that need nothing but their inputs."""

_REDUCE = {
    "ReduceL1": "ReduceL1",
    "ReduceL2": "ReduceL2",
    "ReduceMax": "ReduceMax",
    "ReduceMean": "ReduceMean",
    "ReduceMin": "ReduceMin",
    "ReduceProd": "ReduceProd",
    "ReduceSum": "ReduceSum",
}


def shape_of(operation: Operation) -> list[int]:
    """Of its output."""
    return [int(side) for side in operation.output(0).get_shape()]


def input_shape(operation: Operation, place: int = 0) -> list[int]:
    return [int(side) for side in operation.input(place).get_shape()]


def known(operation: Operation, place: int) -> Any:
    """An input that must be a constant, as an array.

    Raises:
        GraftError: it is computed.
    """
    source = operation.input_value(place).get_node()
    if source.get_type_name() != "Constant":
        raise refusal(operation, f"an input {place} that is computed")
    return source.data


def refusal(operation: Operation, got: str) -> GraftError:
    return GraftError(
        "this network cannot be exported to ONNX",
        got=f"OpenVINO's operation {operation.get_type_name()}: {got}",
        todo="export with --to openvino, or use another backbone",
    )


def _plain(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node(_PLAIN[operation.get_type_name()], *inputs)


def _reduce(build: Builder, operation: Operation, inputs: list[str]) -> str:
    keep = int(operation.get_attributes()["keep_dims"])
    axes = build.integers(*np.atleast_1d(known(operation, 1)).tolist())
    return build.node(_REDUCE[operation.get_type_name()], inputs[0], axes, keepdims=keep)


def _reshape(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("Reshape", inputs[0], build.integers(*shape_of(operation)))


def _expand(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("Expand", inputs[0], build.integers(*shape_of(operation)))


def _convert(build: Builder, operation: Operation, inputs: list[str]) -> str:
    wanted = helper.np_dtype_to_tensor_dtype(np.dtype(operation.get_output_element_type(0).to_dtype()))
    return build.node("Cast", inputs[0], to=wanted)


def _transpose(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("Transpose", inputs[0], perm=known(operation, 1).tolist())


def _clamp(build: Builder, operation: Operation, inputs: list[str]) -> str:
    limits = operation.get_attributes()
    return build.node("Clip", inputs[0], _single(limits["min"]), _single(limits["max"]))


def _single(value: float) -> Any:
    return np.array(value, np.float32)


def _swish(build: Builder, operation: Operation, inputs: list[str]) -> str:
    scaled = build.node("Mul", *inputs) if len(inputs) > 1 else inputs[0]
    return build.node("Mul", inputs[0], build.node("Sigmoid", scaled))


def _hard_sigmoid(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("HardSigmoid", inputs[0], alpha=1 / 6, beta=0.5)


def _prelu(build: Builder, operation: Operation, inputs: list[str]) -> str:
    """OpenVINO's slopes of one axis are those of the channels."""
    slopes, axes = input_shape(operation, 1), len(input_shape(operation))
    shape = [slopes[0], *[1] * (axes - 2)] if len(slopes) == 1 and slopes[0] > 1 else slopes
    return build.node("PRelu", inputs[0], build.node("Reshape", inputs[1], build.integers(*shape)))


def _mish(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("Mul", inputs[0], build.node("Tanh", build.node("Softplus", inputs[0])))


def _gelu(build: Builder, operation: Operation, inputs: list[str]) -> str:
    x = inputs[0]
    half = build.node("Mul", x, _single(0.5))
    if str(operation.get_attributes().get("approximation_mode", "ERF")).upper() == "TANH":
        cubed = build.node("Mul", build.node("Mul", x, x), x)
        inner = build.node("Add", x, build.node("Mul", cubed, _single(0.044715)))
        bent = build.node("Tanh", build.node("Mul", inner, _single(math.sqrt(2 / math.pi))))
    else:
        bent = build.node("Erf", build.node("Div", x, _single(math.sqrt(2))))
    return build.node("Mul", half, build.node("Add", bent, _single(1)))


def _convolution(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("Conv", inputs[0], inputs[1], **_window(operation), dilations=_dilations(operation))


def _group_convolution(build: Builder, operation: Operation, inputs: list[str]) -> str:
    """OpenVINO's weights have the groups as an axis: (G, O / G, I / G, ...)."""
    groups, out, *rest = input_shape(operation, 1)
    weight = build.node("Reshape", inputs[1], build.integers(groups * out, *rest))
    return build.node("Conv", inputs[0], weight, group=groups, **_window(operation), dilations=_dilations(operation))


def _dilations(operation: Operation) -> list[int]:
    return [int(each) for each in operation.get_attributes().get("dilations", [1, 1])]


def _window(operation: Operation) -> dict[str, Any]:
    """Strides and padding."""
    found = operation.get_attributes()
    strides, padding = [int(each) for each in found["strides"]], str(found["auto_pad"]).upper()
    if padding in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        return {"strides": strides, "auto_pad": padding}
    return {"strides": strides, "pads": [int(each) for key in ("pads_begin", "pads_end") for each in found[key]]}


def _pool(build: Builder, operation: Operation, inputs: list[str]) -> str:
    found = operation.get_attributes()
    rounding = str(found["rounding_type"]).lower()
    common = {"kernel_shape": [int(each) for each in found["kernel"]], **_window(operation)}
    common["ceil_mode"] = int(rounding.startswith("ceil"))
    if operation.get_type_name() == "MaxPool":
        return build.node("MaxPool", inputs[0], **common, dilations=_dilations(operation))
    return build.node("AveragePool", inputs[0], **common, count_include_pad=int(not found["exclude-pad"]))


def _matmul(build: Builder, operation: Operation, inputs: list[str]) -> str:
    found = operation.get_attributes()
    sides = [
        _turned(build, operation, inputs, place) if found[key] else inputs[place]
        for place, key in enumerate(("transpose_a", "transpose_b"))
    ]
    return build.node("MatMul", *sides)


def _turned(build: Builder, operation: Operation, inputs: list[str], place: int) -> str:
    axes = list(range(len(input_shape(operation, place))))
    if len(axes) < 2:
        return inputs[place]
    return build.node("Transpose", inputs[place], perm=[*axes[:-2], axes[-1], axes[-2]])


def _attention(build: Builder, operation: Operation, inputs: list[str]) -> str:
    """softmax(Q K^T * scale + mask) V."""
    if operation.get_attributes().get("causal"):
        raise refusal(operation, "causal")
    query, _, value, *further = inputs
    scale = further[1] if len(further) > 1 else _single(1 / math.sqrt(input_shape(operation)[-1]))
    scores = build.node("MatMul", build.node("Mul", query, scale), _turned(build, operation, inputs, 1))
    if further and input_shape(operation, 3):  # a mask without axes is none
        if operation.get_input_element_type(3).to_string() == "boolean":
            scores = build.node("Where", further[0], scores, _single(-np.inf))
        else:
            scores = build.node("Add", scores, further[0])
    return build.node("MatMul", build.node("Softmax", scores, axis=-1), value)


def _softmax(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("Softmax", inputs[0], axis=int(operation.get_attributes()["axis"]))


def _concat(build: Builder, operation: Operation, inputs: list[str]) -> str:
    return build.node("Concat", *inputs, axis=int(operation.get_attributes()["axis"]))


def _gather(build: Builder, operation: Operation, inputs: list[str]) -> str:
    if operation.get_attributes().get("batch_dims"):
        raise refusal(operation, "batch_dims")
    return build.node("Gather", inputs[0], inputs[1], axis=int(known(operation, 2).item()))


def _slice(build: Builder, operation: Operation, inputs: list[str]) -> str:
    """From starts, stops, steps and, if not all, the axes."""
    starts, stops, steps = (np.atleast_1d(known(operation, place)).tolist() for place in (1, 2, 3))
    axes = np.atleast_1d(known(operation, 4)).tolist() if len(inputs) > 4 else list(range(len(starts)))
    return build.node("Slice", inputs[0], *(build.integers(*each) for each in (starts, stops, axes, steps)))


def _pad(build: Builder, operation: Operation, inputs: list[str]) -> str:
    mode = str(operation.get_attributes()["pad_mode"]).lower()
    if mode not in ("constant", "reflect", "edge"):
        raise refusal(operation, f"mode {mode}")
    pads = build.integers(*known(operation, 1).tolist(), *known(operation, 2).tolist())
    return build.node("Pad", inputs[0], pads, *inputs[3:], mode=mode)


_INTERPOLATE = {"nearest": "nearest", "linear": "linear", "linear_onnx": "linear", "cubic": "cubic"}


def _interpolate(build: Builder, operation: Operation, inputs: list[str]) -> str:
    """Of maps as they are, without a border."""
    found = operation.get_attributes()
    mode = str(found["mode"]).lower()
    if mode not in _INTERPOLATE or any((*found["pads_begin"], *found["pads_end"])):
        raise refusal(operation, f"{found}")
    further: dict[str, dict[str, Any]] = {
        "nearest": {"nearest_mode": str(found["nearest_mode"]).lower()},
        "cubic": {"cubic_coeff_a": float(found["cube_coeff"])},
    }
    return build.node(
        "Resize",
        inputs[0],
        "",
        "",
        build.integers(*shape_of(operation)),
        mode=_INTERPOLATE[mode],
        coordinate_transformation_mode=str(found["coordinate_transformation_mode"]).lower(),
        antialias=int(found["antialias"]),
        **further.get(mode, {}),
    )


def _mvn(build: Builder, operation: Operation, inputs: list[str]) -> str:
    """(x - mean) / sqrt(variance + eps), over the axes given."""
    found, shape = operation.get_attributes(), input_shape(operation)
    axes = sorted(int(axis) % len(shape) for axis in np.atleast_1d(known(operation, 1)).tolist())
    inside = "INSIDE" in str(found["eps_mode"]).upper()
    if not found["normalize_variance"] or not inside:
        raise refusal(operation, f"{found}")
    if axes == list(range(axes[0], len(shape))):
        ones = np.ones(shape[axes[0] :], np.float32)
        return build.node("LayerNormalization", inputs[0], ones, axis=axes[0], epsilon=float(found["eps"]))
    centred = build.node("Sub", inputs[0], build.node("ReduceMean", inputs[0], build.integers(*axes)))
    variance = build.node("ReduceMean", build.node("Mul", centred, centred), build.integers(*axes))
    return build.node("Div", centred, build.node("Sqrt", build.node("Add", variance, _single(found["eps"]))))


def _roll(build: Builder, operation: Operation, inputs: list[str]) -> str:
    value, shape = inputs[0], input_shape(operation)
    for shift, axis in zip(np.atleast_1d(known(operation, 1)), np.atleast_1d(known(operation, 2)), strict=True):
        cut = int(-shift) % shape[axis]
        if cut:
            ends = [(cut, shape[axis]), (0, cut)]
            parts = [_part(build, value, start, stop, int(axis)) for start, stop in ends]
            value = build.node("Concat", *parts, axis=int(axis))
    return value


def _part(build: Builder, value: str, start: int, stop: int, axis: int) -> str:
    return build.node("Slice", value, build.integers(start), build.integers(stop), build.integers(axis))


TRANSLATIONS: dict[str, Translation] = {
    **dict.fromkeys(_PLAIN, _plain),
    **dict.fromkeys(_REDUCE, _reduce),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "AvgPool": _pool,
    "Broadcast": _expand,
    "Clamp": _clamp,
    "Concat": _concat,
    "Convert": _convert,
    "Convolution": _convolution,
    "Gather": _gather,
    "Gelu": _gelu,
    "GroupConvolution": _group_convolution,
    "HSigmoid": _hard_sigmoid,
    "Interpolate": _interpolate,
    "MVN": _mvn,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mish": _mish,
    "PRelu": _prelu,
    "Pad": _pad,
    "Roll": _roll,
    "ScaledDotProductAttention": _attention,
    "Slice": _slice,
    "Softmax": _softmax,
    "Swish": _swish,
    "Transpose": _transpose,
}
"""By OpenVINO's name; `Split` and `VariadicSplit`, which have several outputs, are in `network.py`."""
