"""NASNet-A (4 @ 1056), Keras' NASNetMobile, as a timm model; and the pools of Keras' NASNets.

Zoph et al. 2018, Learning Transferable Architectures for Scalable Image Recognition.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from timm.layers import pad_same
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models.nasnet import NASNetALarge
from torch import nn

STAGES = (range(4), range(6, 10), range(12, 16))
"""The normal cells of each stage, by their numbers in `NASNetALarge`, which has six a stage."""


TAPS = {"conv0": 32, "cell_stem_0": 44, "cell_3": 264, "cell_9": 528, "cell_15": 1056}
"""The layers whose maps `feature_info` names, the last of each size, and their channels."""


class ZeroPadded(nn.Module):
    """A pool without padding of its own over an input that is padded with zeros to TensorFlow's "same" size; the zeros
    count. Keras pads the input of a reduction cell's pools so."""

    def __init__(self, pool: nn.Module, size: int, stride: int) -> None:
        super().__init__()
        self.pool, self.window = pool, ([size, size], [stride, stride])

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.pool(pad_same(x_BCHW, *self.window))
        return pooled


def pool_as_keras(network: nn.Module) -> None:
    """Replaces timm's "same" pools: Keras leaves padding out of an average, but for the zeros of a reduction cell."""
    for parent in list(network.modules()):
        for name, pool in list(parent.named_children()):
            if isinstance(pool, MaxPool2dSame):
                setattr(parent, name, ZeroPadded(nn.MaxPool2d(3, 2), 3, 2))
            elif isinstance(pool, AvgPool2dSame) and pool.stride[0] == 2:
                setattr(parent, name, ZeroPadded(nn.AvgPool2d(3, 2), 3, 2))
            elif isinstance(pool, AvgPool2dSame):
                setattr(parent, name, nn.AvgPool2d(3, 1, padding=1, count_include_pad=False))


class NASNetAMobile(NASNetALarge):  # type: ignore[misc]
    """NASNet-A (4 @ 1056): four cells a stage, and a reduction's skip one cell back (Keras' `skip_reduction=False`)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(stem_size=32, num_features=1056, channel_multiplier=2, pad_type="same", **options)
        for number in {*range(18)} - {cell for stage in STAGES for cell in stage}:
            delattr(self, f"cell_{number}")
        self.layer_names: list[str] = [name for name in self.layer_names if hasattr(self, name)]
        self.feature_ends = [self.layer_names.index(name) for name in TAPS]
        self.feature_info: list[dict[str, Any]] = [
            {**info, "num_chs": channels} for info, channels in zip(self.feature_info, TAPS.values())
        ]
        pool_as_keras(self)

    def _outputs(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of each layer in `layer_names`: a cell sees what the two before it gave, reductions like all others."""
        before = x
        for number, name in enumerate(self.layer_names):
            layer = self.get_submodule(name)
            seen = (x,) if number < 2 else (before, x) if name == "cell_stem_1" else (x, before)
            before, x = x, layer(*seen)
            yield x

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to the last activated maps, (B, 1056, H / 32, W / 32)."""
        *_, last = self._outputs(x)
        maps: torch.Tensor = self.act(last)
        return maps

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps at `feature_info`, see timm: the stem's as they are, the cells' activated."""
        take, last = feature_take_indices(len(self.feature_ends), indices)
        found, end = [], self.feature_ends[last if stop_early else -1]
        for place, output in enumerate(islice(self._outputs(x), end + 1)):
            x = output if place == 0 else nn.functional.relu(output)
            if place in self.feature_ends and self.feature_ends.index(place) in take:
                found.append(x)
        return found if intermediates_only else (x, found)


default_cfgs = generate_default_cfgs(
    {
        "nasnetamobile.untrained": {
            "url": "",
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 1000,
            "first_conv": "conv0.conv",
            "classifier": "last_linear",
        },
    }
)


@register_model  # type: ignore[untyped-decorator]
def nasnetamobile(pretrained: bool = False, **options: Any) -> NASNetAMobile:
    """NASNet-A (4 @ 1056), Keras' NASNetMobile; timm has no weights of it."""
    model: NASNetAMobile = build_model_with_cfg(
        NASNetAMobile, "nasnetamobile", pretrained, feature_cfg={"feature_cls": "hook", "no_rewrite": True}, **options
    )
    return model
