"""How much of the images the network sees, and what a large input costs. N images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..common.backbones.spec import Spec
from ..common.images.transform import EvalTransform

if TYPE_CHECKING:
    import pandas as pd

MUCH = 0.25
"""The unseen share of the area from which on it is said. The middle that most weights keep is 77 % of a square."""

USUAL, LARGE = 224, 256
"""Pixels a side: the size of most pre-training, and that from which on the cost is said."""


@dataclass(frozen=True)
class Unseen:
    """What the network does not see of the images.

    Attributes:
        share: of the area of all images, from 0 to 1.
        worst: of the area of one image, and `size` its width and height.
    """

    share: float
    worst: float
    size: tuple[int, int]

    def advice(self) -> str:
        """A sentence, if much is unseen."""
        if self.share < MUCH:
            return ""
        width, height = self.size
        return (
            f"features: the network does not see {self.share:.0%} of the area of the images "
            f"(at worst {self.worst:.0%}, of {width} x {height}), since it is shown their middle; if what matters may "
            "lie elsewhere, `features.crop: border` or `squash` shows it everything"
        )


def unseen(manifest: pd.DataFrame, transforms: Sequence[EvalTransform]) -> Unseen:
    """What no network sees.

    Args:
        manifest: at least one image; its columns `width` and `height`, of N images.
        transforms: of each network.
    """
    sizes = manifest.value_counts(["width", "height"], sort=False)
    pixels = np.array([count * width * height for (width, height), count in sizes.items()], np.float64)
    shares = np.array([1 - max(one.seen(*size) for one in transforms) for size in sizes.index])
    worst = int(shares.argmax())
    width, height = sizes.index[worst]
    return Unseen(float(shares @ pixels / pixels.sum()), float(shares[worst]), (int(width), int(height)))


def cost(spec: Spec) -> str:
    """A sentence, if the input is large."""
    height, width = spec.transform.height, spec.transform.width
    if height * width <= LARGE * LARGE:
        return ""
    return (
        f"features: {spec.backbone} takes images of {width} x {height}, {height * width / USUAL**2:.1f} times the "
        f"pixels of {USUAL} x {USUAL}, and at least as many times the computation; `features.image_size: {USUAL}` is "
        "faster"
    )
