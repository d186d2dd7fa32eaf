"""The decoder in ONNX, as `heads/decoder.py` builds it in OpenVINO. B images, C channels, H x W pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from ..common.heads.decoder import DecoderHead
from .builder import Builder


def levels_of(build: Builder, head: DecoderHead, maps: str) -> list[str]:
    """Each map, (B, C, H, W), from all as float32 (B, D)."""
    shapes = head.plan.maps
    parts = [maps]
    if len(shapes) > 1:
        sizes = build.integers(*(c * h * w for c, h, w in shapes))
        parts = build.nodes("Split", len(shapes), maps, sizes, axis=1)
    return [build.node("Reshape", part, build.integers(-1, *shape)) for part, shape in zip(parts, shapes, strict=True)]


def decoded(build: Builder, head: DecoderHead, levels: list[str]) -> str:
    """The image, (B, C, H, W), from 0 to 1."""
    plan, w, found = head.plan, head.weights, ""
    for step, (height, wide, _) in enumerate(plan.steps):
        added = [_conv(build, levels[i], w[f"map.{i}.weight"]) for i in plan.maps_at(step)]
        if found:
            above = _conv(build, found, w[f"up.{step}.weight"])
            added.append(_enlarged(build, above, height, wide))
        total = build.node("Add", added[0], w[f"sum.{step}.bias"].reshape(1, -1, 1, 1))
        for one in added[1:]:
            total = build.node("Add", total, one)
        found = _conv(build, build.node("Relu", total), w[f"step.{step}.weight"], w[f"step.{step}.bias"])
        found = build.node("Relu", found)
    pixels = build.node("Sigmoid", _conv(build, found, w["last.weight"], w["last.bias"]))
    if plan.block > 1:
        pixels = build.node("DepthToSpace", pixels, blocksize=plan.block, mode="CRD")
    _, height, wide = plan.image
    return build.node("Slice", pixels, build.integers(0, 0), build.integers(height, wide), build.integers(2, 3))


def mean_of(build: Builder, head: DecoderHead, images: str) -> str:
    """`Head.output`, (B,): the mean of the pixels, or of a mask the share that is marked."""
    if head.target == "mask":
        marked = build.node("GreaterOrEqual", images, np.array(head.threshold, np.float32))
        images = build.node("Cast", marked, to=TensorProto.FLOAT)
    return build.node("ReduceMean", images, build.integers(1, 2, 3), keepdims=0)


def means_of(build: Builder, levels: list[str]) -> str:
    """The mean over the places of each channel of all maps, (B, channels), see `MapForm.means`."""
    means = [build.node("ReduceMean", level, build.integers(2, 3), keepdims=0) for level in levels]
    return build.node("Concat", *means, axis=1) if len(means) > 1 else means[0]


def _conv(build: Builder, x: str, weight: Any, bias: Any = None) -> str:
    size = int(weight.shape[2])
    more = [] if bias is None else [np.asarray(bias, np.float32)]
    return build.node("Conv", x, np.asarray(weight, np.float32), *more, kernel_shape=[size] * 2, pads=[size // 2] * 4)


def _enlarged(build: Builder, x: str, height: int, wide: int) -> str:
    sizes = build.integers(height, wide)
    return build.node(
        "Resize", x, "", "", sizes, axes=[2, 3], mode="linear", coordinate_transformation_mode="half_pixel"
    )
