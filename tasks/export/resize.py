"""The evaluation transform in ONNX: from a picture of any size to the pixels that a network sees.

ONNX Runtime's antialiased `Resize` of uint8 does what Pillow does, in fixed-point arithmetic: on noise of 150 sizes,
0.04 % of the values of `bicubic` and 0.4 % of those of `bilinear` differed, by two grey levels at most. Each pass is a
node of its own, because Pillow chooses which of them comes first and rounds to uint8 between them.

C channels; H x W is the picture, h x w the network's input. Sizes are int64 of shape (1,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from ..common.core.errors import GraftError
from ..common.images.transform import _VERTICAL_FIRST, EvalTransform
from .builder import Builder

_RESIZE: dict[str, dict[str, Any]] = {
    "bicubic": {"mode": "cubic", "antialias": 1, "cubic_coeff_a": -0.5, "exclude_outside": 1},
    "bilinear": {"mode": "linear", "antialias": 1, "exclude_outside": 1},
}

_ONE = numpy_helper.from_array(np.array([1], np.uint8))


@dataclass(frozen=True)
class _Image:
    """A value of uint8 (1, C, height, width)."""

    value: str
    height: str
    width: str


def network_pixels(build: Builder, picture: str, transform: EvalTransform) -> str:
    """uint8 (1, h, w, C), from a picture of uint8 (H, W, C).

    Raises:
        GraftError: ONNX has no such interpolation.
    """
    image = _resized(build, _image(build, picture), transform)
    cropped = _cropped(build, _padded(build, image, transform), transform)
    return build.node("Transpose", cropped, perm=[0, 2, 3, 1])


def _image(build: Builder, picture: str) -> _Image:
    channels_first = build.node("Transpose", picture, perm=[2, 0, 1])
    value = build.node("Unsqueeze", channels_first, build.integers(0))
    height, width = (build.node("Shape", value, start=axis, end=axis + 1) for axis in (2, 3))
    return _Image(value, height, width)


def _resized(build: Builder, image: _Image, transform: EvalTransform) -> _Image:
    height, width = _size(build, image, transform)
    if transform.interpolation == "nearest":
        value = build.node("Gather", image.value, _nearest(build, image.height, height), axis=2)
        return _Image(build.node("Gather", value, _nearest(build, image.width, width), axis=3), height, width)
    if transform.interpolation not in _RESIZE:
        raise GraftError(
            "the resize of this model cannot be exported to ONNX",
            got=transform.interpolation,
            allowed=", ".join([*_RESIZE, "nearest"]),
            todo="export with --to openvino, whose file takes pictures that are resized already",
        )
    between = _size_between(build, image, height, width)
    value = image.value
    for size in (between, (height, width)):
        shape = build.node("Concat", build.integers(1, transform.channels), *size, axis=0)
        value = build.node("Resize", value, "", "", shape, **_RESIZE[transform.interpolation])
    return _Image(value, height, width)


def _size(build: Builder, image: _Image, transform: EvalTransform) -> tuple[str, str]:
    """(height, width) after the resize; see `EvalTransform.resized`."""
    target_w, target_h = (int(side / transform.crop_pct) for side in (transform.width, transform.height))
    if transform.crop_mode == "squash":
        return build.integers(target_h), build.integers(target_w)
    if transform.crop_mode == "center" and target_w == target_h:
        return _short_side(build, image, target_h)
    pick = "Max" if transform.crop_mode == "border" else "Min"
    height, width = (build.node("Cast", side, to=TensorProto.DOUBLE) for side in (image.height, image.width))
    ratio = build.node(
        pick,
        build.node("Div", height, np.array([target_h], np.float64)),
        build.node("Div", width, np.array([target_w], np.float64)),
    )
    return _rounded(build, build.node("Div", height, ratio)), _rounded(build, build.node("Div", width, ratio))


def _short_side(build: Builder, image: _Image, target: int) -> tuple[str, str]:
    """Integers divide as `int()` of Python's quotient does: it is exact enough for every size of an image."""
    short = build.integers(target)
    upright = build.node("LessOrEqual", image.width, image.height)
    tall = build.node("Div", build.node("Mul", image.height, short), image.width)
    wide = build.node("Div", build.node("Mul", image.width, short), image.height)
    return build.node("Where", upright, tall, short), build.node("Where", upright, short, wide)


def _rounded(build: Builder, side: str) -> str:
    """At least 1; ONNX rounds halves to even, as Python does."""
    whole = build.node("Cast", build.node("Round", side), to=TensorProto.INT64)
    return build.node("Max", whole, build.integers(1))


def _size_between(build: Builder, image: _Image, height: str, width: str) -> tuple[str, str]:
    """The size after the first of the two passes: the horizontal one, unless Pillow starts with the vertical one."""
    if not _VERTICAL_FIRST:
        return image.height, width
    lost_h, lost_w = build.node("Sub", image.height, height), build.node("Sub", image.width, width)
    twice = build.node("Mul", lost_w, build.integers(2))
    vertical = build.node("Greater", lost_h, build.node("Max", twice, build.integers(0)))
    return (
        build.node("Where", vertical, height, image.height),
        build.node("Where", vertical, image.width, width),
    )


def _nearest(build: Builder, before: str, after: str) -> str:
    """The pixels that a side of `after` pixels takes from one of `before`: floor((x + 0.5) * before / after), added up
    step by step, as Pillow does."""
    step = build.node("Div", *(build.node("Cast", side, to=TensorProto.DOUBLE) for side in (before, after)))
    further = build.node("Expand", step, build.node("Sub", after, build.integers(1)))
    steps = build.node("Concat", build.node("Mul", step, np.array([0.5])), further, axis=0)
    found = build.node("Cast", build.node("CumSum", steps, np.array(0, np.int64)), to=TensorProto.INT64)
    return build.node("Min", found, build.node("Sub", before, build.integers(1)))


def _padded(build: Builder, image: _Image, transform: EvalTransform) -> _Image:
    """At least as large as the network's input: `border` pads with the mean colour, any other mode with black."""
    if transform.crop_mode == "center" and transform.height == transform.width and transform.crop_pct <= 1:
        return image  # its short side is at least as long
    height, before_h, after_h = _bars(build, image.height, transform.height)
    width, before_w, after_w = _bars(build, image.width, transform.width)
    zeros = build.integers(0, 0)
    pads = build.node("Concat", zeros, before_h, before_w, zeros, after_h, after_w, axis=0)
    padded = build.node("Pad", image.value, pads, np.array(0, np.uint8))
    if transform.crop_mode == "border":
        ones = build.node("ConstantOfShape", build.node("Shape", image.value), value=_ONE)
        inside = build.node("Cast", build.node("Pad", ones, pads, np.array(0, np.uint8)), to=TensorProto.BOOL)
        fill = np.array([round(255 * value) for value in transform.mean], np.uint8).reshape(1, -1, 1, 1)
        padded = build.node("Where", inside, padded, fill)
    return _Image(padded, height, width)


def _bars(build: Builder, side: str, least: int) -> tuple[str, str, str]:
    """(length, what is added before, what is added after) of a side that must have at least `least` pixels."""
    length = build.node("Max", side, build.integers(least))
    added = build.node("Sub", length, side)
    before = build.node("Div", added, build.integers(2))
    return length, before, build.node("Sub", added, before)


def _cropped(build: Builder, image: _Image, transform: EvalTransform) -> str:
    """uint8 (1, C, h, w)."""
    start = build.node(
        "Concat", _offset(build, image.height, transform.height), _offset(build, image.width, transform.width), axis=0
    )
    end = build.node("Add", start, build.integers(transform.height, transform.width))
    value = build.node("Slice", image.value, start, end, build.integers(2, 3))
    return build.node("Reshape", value, build.integers(1, transform.channels, transform.height, transform.width))


def _offset(build: Builder, length: str, kept: int) -> str:
    """round((length - kept) / 2), with halves to even: for an odd difference the even one of m and m + 1."""
    two = build.integers(2)
    difference = build.node("Sub", length, build.integers(kept))
    half = build.node("Div", difference, two)
    up = build.node("Mul", build.node("Mod", difference, two), build.node("Mod", half, two))
    return build.node("Add", half, up)
