"""The decoder: from feature maps at several depths to an image. B images, L maps, S steps, from the coarsest on.

A U-Net (Ronneberger et al. 2015) whose first half is the frozen backbone, with the sums of a feature pyramid (Lin et
al. 2017) in place of concatenation: each step enlarges what it has to the size of the next finer map, adds a 1 x 1
convolution of that map, and ends with a 3 x 3 convolution. The last step makes the pixels of a block out of channels
(Shi et al. 2016). It runs in OpenVINO, which builds it from the arrays: prediction needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

if TYPE_CHECKING:
    from ..data.manifest import Task
from .base import Array, Double, Head, Single

BATCH = 16
"""Images that are decoded at a time."""

Shape = tuple[int, int, int]
"""Channels, height and width of a map or an image."""


@dataclass(frozen=True)
class Plan:
    """The form of a decoder.

    Attributes:
        maps: of the L maps, in the order in which they lie in a row of features.
        steps: (height, width, channels) of each step.
        image: of what comes out.
    """

    maps: tuple[Shape, ...]
    steps: tuple[Shape, ...]
    image: Shape

    @classmethod
    def of(cls, maps: Sequence[Shape], image: Shape, width: int, widest: int) -> Plan:
        """A step for each size of a map, and for each halving of the image that is finer than all maps. The finest has
        `width` channels, and each coarser one twice as many, up to `widest`."""
        _, height, wide = image
        sizes, finest, part = {(h, w) for _, h, w in maps}, max(h for _, h, _ in maps), 2
        while (rows := -(-height // part)) > finest:
            sizes.add((rows, -(-wide // part)))
            part *= 2
        ordered = sorted(sizes)
        steps = tuple(
            (h, w, min(widest, width * 2 ** (len(ordered) - 1 - place))) for place, (h, w) in enumerate(ordered)
        )
        return cls(tuple(maps), steps, image)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        maps, steps = (tuple(_shape(each) for each in values[name]) for name in ("maps", "steps"))
        return cls(maps, steps, _shape(values["image"]))

    @property
    def dimension(self) -> int:
        """D: of all maps, one after the other."""
        return sum(c * h * w for c, h, w in self.maps)

    @property
    def block(self) -> int:
        """The side of the square of pixels that each place of the last step becomes."""
        height, width, _ = self.steps[-1]
        return max(-(-self.image[1] // height), -(-self.image[2] // width))

    def maps_at(self, step: int) -> list[int]:
        """The maps of this step's size."""
        return [place for place, (_, h, w) in enumerate(self.maps) if (h, w) == self.steps[step][:2]]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays, by name."""
        found: dict[str, tuple[int, ...]] = {}
        for step, (_, _, channels) in enumerate(self.steps):
            if step:
                found[f"up.{step}.weight"] = (channels, self.steps[step - 1][2], 1, 1)
            for place in self.maps_at(step):
                found[f"map.{place}.weight"] = (channels, self.maps[place][0], 1, 1)
            found[f"sum.{step}.bias"] = (channels,)
            found[f"step.{step}.weight"], found[f"step.{step}.bias"] = (channels, channels, 3, 3), (channels,)
        out = self.image[0] * self.block**2
        return found | {"last.weight": (out, self.steps[-1][2], 3, 3), "last.bias": (out,)}


def _shape(values: Sequence[int]) -> Shape:
    first, second, third = map(int, values)
    return first, second, third


@dataclass(frozen=True)
class DecoderHead(Head):
    """Decodes the maps of an image to an image of values from 0 to 1. Its output as a head, (B, 1), is their mean: of a
    mask, the share of the image that is marked.

    Attributes:
        plan: its form.
        weights: its arrays, by the names of `Plan.shapes`, for maps as the backbone gives them.
        target: what it learned to decode: `image`, `mask` or `target`.
        threshold: of a mask, the value from which on a pixel is marked.
    """

    plan: Plan
    weights: dict[str, Single] = field(repr=False)
    target: str
    threshold: float = 0.5
    classes: list[str] = field(default_factory=list)
    task: Task = "reconstruction"
    kind: ClassVar[str] = "decoder"
    arrays: ClassVar[tuple[str, ...]] = ()

    @property
    def dimension(self) -> int:
        return self.plan.dimension

    @cached_property
    def _model(self) -> Any:
        import openvino as ov

        maps = ov.opset13.parameter([-1, self.dimension], np.float32, "maps")
        model = ov.Model([decoded(self, maps)], [maps], "decoder")
        return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def images(self, maps_BD: Array) -> Single:
        """Float32 (B, C, H, W), from 0 to 1."""
        found = [
            self._model(np.ascontiguousarray(maps_BD[start : start + BATCH], np.float32))[0].copy()
            for start in range(0, len(maps_BD), BATCH)
        ]
        return np.concatenate(found) if found else np.empty((0, *self.plan.image), np.float32)

    def marked(self, images_BCHW: Single) -> Array:
        """Which pixels of decoded masks are marked: bool (B, H, W)."""
        return cast(Array, images_BCHW[:, 0] >= self.threshold)

    def values(self, images_BCHW: Single) -> Double:
        """Of decoded images, (B,): see above."""
        pixels = self.marked(images_BCHW) if self.target == "mask" else images_BCHW
        return cast(Double, pixels.reshape(len(images_BCHW), -1).mean(axis=1, dtype=np.float64))

    def _output(self, x_BD: Single) -> Double:
        return self.values(self.images(x_BD))[:, None]

    def tensors(self) -> dict[str, Array]:
        return {name: np.ascontiguousarray(weight) for name, weight in self.weights.items()}

    def settings(self) -> dict[str, Any]:
        return {"plan": asdict(self.plan), "target": self.target, "threshold": self.threshold}

    @classmethod
    def of(cls, facts: dict[str, Any], tensors: dict[str, Array]) -> DecoderHead:
        """As it was saved."""
        return cls(Plan.from_dict(facts["plan"]), tensors, facts["target"], facts["threshold"])


def decoded(head: DecoderHead, maps: Any) -> Any:
    """The decoder's image, (B, C, H, W), as a node of OpenVINO.

    Args:
        maps: the node with the maps, float32 (B, D).
    """
    import openvino as ov

    ops, plan, w = ov.opset13, head.plan, head.weights
    parts = ops.variadic_split(maps, 1, [c * h * wide for c, h, wide in plan.maps])
    levels = [ops.reshape(parts.output(i), [-1, *shape], special_zero=False) for i, shape in enumerate(plan.maps)]
    found: Any = None
    for step, (height, wide, _) in enumerate(plan.steps):
        added = [_conv(levels[i], w[f"map.{i}.weight"]) for i in plan.maps_at(step)]
        if found is not None:
            added.append(_enlarged(_conv(found, w[f"up.{step}.weight"]), height, wide))
        total = added[0]
        for one in added[1:]:
            total = ops.add(total, one)
        total = ops.relu(_biased(total, w[f"sum.{step}.bias"]))
        found = ops.relu(_biased(_conv(total, w[f"step.{step}.weight"]), w[f"step.{step}.bias"]))
    pixels = ops.sigmoid(_biased(_conv(found, w["last.weight"]), w["last.bias"]))
    if plan.block > 1:
        pixels = ops.depth_to_space(pixels, "depth_first", plan.block)
    _, height, wide = plan.image
    return ops.slice(pixels, [0, 0], [height, wide], [1, 1], [2, 3])


def _conv(x: Any, weight: Array) -> Any:
    import openvino as ov

    pad = [weight.shape[2] // 2] * 2
    return ov.opset13.convolution(x, np.ascontiguousarray(weight, np.float32), [1, 1], pad, pad, [1, 1])


def _biased(x: Any, bias: Array) -> Any:
    import openvino as ov

    return ov.opset13.add(x, np.ascontiguousarray(bias, np.float32).reshape(1, -1, 1, 1))


def _enlarged(x: Any, height: int, wide: int) -> Any:
    """Bilinear, as torch's `interpolate` without `align_corners`."""
    import openvino as ov

    return ov.opset13.interpolate(x, [height, wide], "linear_onnx", "sizes", axes=[2, 3])
