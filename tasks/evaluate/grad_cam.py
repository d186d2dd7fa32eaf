"""Which regions of an image support a prediction: Grad-CAM (Selvaraju et al. 2017), computed by captum.

B images, C channels, H x W pixels, D features, h x w places of the last maps, T tokens, K classes. Imports torch, which
takes seconds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import nn

from ..common.backbones.pooling import map_axes
from ..common.core.errors import GraftError
from ..common.heads.base import Head
from ..common.heads.linear import LinearHead
from ..common.heads.mean import MeanHead
from ..common.heads.mlp import MlpHead

SaliencyMap = npt.NDArray[np.float32]
"""float32 (H, W): 1 where the support for the output is strongest, 0 where there is none."""


class NoMaps(GraftError):
    """The network or the head has no regions that a prediction could be attributed to."""


class MappedNetwork(nn.Module):
    """A backbone and its head, with the last feature maps passing through `maps`, as (B, D, h, w).

    These are the maps that the network pools. If it pools a class token, no other token of its output has an effect;
    then they are the input of its last block.

    Args:
        network: with timm's `forward_features` and `forward_head`.
        last: from features (B, D) to logits (B, K), or to the number (B, 1).
        size: (C, H, W) of the input.

    Raises:
        NoMaps: its features have no places.
    """

    def __init__(self, network: nn.Module, last: nn.Module, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.network, self.last, self.maps = network.eval().requires_grad_(False), last, nn.Identity()
        self._size, self._pools_maps = size, True
        trial_BCHW = torch.linspace(-1, 1, math.prod(size)).view(1, *size)
        shape = list(getattr(self._features(trial_BCHW), "shape", ()))
        self._axes = map_axes(shape, network.num_features)  # type: ignore[arg-type]
        one_place = self._axes is not None and math.prod(shape[axis] for axis in self._axes) == 1
        if one_place or (self._axes is None and len(shape) != 3):
            raise _no_maps(network, f"its last output is of shape {tuple(shape[1:])}")
        if self._axes is None and not self._has_effect(trial_BCHW):
            self._map_the_last_blocks_input()
        if not torch.allclose(self(trial_BCHW), last(network(trial_BCHW)), rtol=1e-3, atol=1e-3):
            raise _no_maps(network, "its prediction does not depend on its last output alone")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        features = self._features(x_BCHW)
        pooled = self._pool(self._through(features) if self._pools_maps else features)
        logits: torch.Tensor = self.last(pooled)
        return logits

    def _features(self, x_BCHW: torch.Tensor) -> Any:
        return self.network.forward_features(x_BCHW)  # type: ignore[operator]

    def _pool(self, features: torch.Tensor) -> Any:
        return self.network.forward_head(features)  # type: ignore[operator]

    def _has_effect(self, x_BCHW: torch.Tensor) -> bool:
        """Whether the output depends on any token that stands for a place."""
        tokens_BTD = self._features(x_BCHW).detach().requires_grad_()
        (gradient_BTD,) = torch.autograd.grad(self._pool(tokens_BTD).square().sum(), tokens_BTD)
        first, _, _ = self._grid(tokens_BTD.shape[1])
        return bool(gradient_BTD[:, first:].any())

    def _map_the_last_blocks_input(self) -> None:
        blocks: Any = getattr(self.network, "blocks", None)
        norm = getattr(blocks[-1], "norm1", None) if blocks else None
        if norm is None:
            raise _no_maps(self.network, "it uses only the class token")
        norm.register_forward_hook(lambda _module, _inputs, tokens_BTD: self._through(tokens_BTD))
        self._pools_maps = False

    def _through(self, features: torch.Tensor) -> torch.Tensor:
        """Passes the features of places through `maps`, and puts them back."""
        if self._axes == (2, 3):
            return self.maps(features)  # type: ignore[no-any-return]
        if self._axes == (1, 2):
            return self.maps(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]
        first, h, w = self._grid(features.shape[1])
        maps_BDhw = features[:, first:].transpose(1, 2).reshape(len(features), -1, h, w)
        return torch.cat([features[:, :first], self.maps(maps_BDhw).flatten(2).transpose(1, 2)], dim=1)

    def _grid(self, tokens: int) -> tuple[int, int, int]:
        """(number of leading tokens without a place, h, w).

        Raises:
            NoMaps: the other tokens do not fill a grid of the shape of the image.
        """
        _, height, width = self._size
        for first in (int(getattr(self.network, "num_prefix_tokens", 0)), 0, 1):
            places = tokens - first
            h = round((places * height / width) ** 0.5)
            w = round((places * width / height) ** 0.5)
            if h * w == places > 1:
                return first, h, w
        raise _no_maps(self.network, f"{tokens} tokens do not form a grid")


def with_maps(network: nn.Module, head: Head, size: tuple[int, int, int]) -> MappedNetwork:
    """A backbone with its head, prepared for `grad_cam`.

    Raises:
        NoMaps: there are no places, or the architecture is not supported.
    """
    last = last_layers(head)
    try:
        return MappedNetwork(network, last, size)
    except NoMaps:
        raise
    except Exception as error:  # an unsupported architecture may fail in any way
        raise _no_maps(network, " ".join(str(error).split())[:200] or type(error).__name__) from error


def grad_cam(network: MappedNetwork, x_BCHW: torch.Tensor, target_B: list[int]) -> list[SaliencyMap]:
    """For each image the support for its output number `target_B`, scaled to a maximum of 1; all 0 if there is none.

    Args:
        x_BCHW: normalised.
    """
    attributed: Any = LayerGradCam(network, network.maps).attribute(
        x_BCHW, target=torch.tensor(target_B), relu_attributions=True
    )
    size = (x_BCHW.shape[3], x_BCHW.shape[2])
    return [_enlarged(map_hw, size) for map_hw in attributed.detach()[:, 0].float().numpy()]


def _enlarged(map_hw: SaliencyMap, size: tuple[int, int]) -> SaliencyMap:
    """Resized to (width, height): smoothly, since a place covers more than the pixels below it."""
    large_HW = np.asarray(
        Image.fromarray(map_hw / max(float(map_hw.max()), 1e-12)).resize(size, Image.Resampling.BICUBIC)
    )
    return (large_HW / max(float(large_HW.max()), 1e-12)).clip(0, 1).astype(np.float32)


def part_of(head: Head, columns: slice) -> Head:
    """The part of a head that sees these columns of the features. With a linear head the other columns only add a
    constant to the logits, which no gradient depends on.

    Raises:
        NoMaps: the head cannot be taken apart.
    """
    if isinstance(head, MeanHead):
        return head.parts[head.columns().index(columns)]
    if isinstance(head, LinearHead):
        return replace(head, weight=head.weight[:, columns])
    if columns == slice(0, head.dimension):
        return head
    raise NoMaps(f"a head of kind {head.kind} on several backbones side by side cannot be taken apart")


def last_layers(head: Head) -> nn.Module:
    """The layers of a head, up to its logits.

    Raises:
        NoMaps: it has no layers.
    """
    if isinstance(head, LinearHead):
        return _linear(head.weight, head.bias)
    if isinstance(head, MlpHead):
        hidden = _linear(head.hidden_weight, head.hidden_bias)
        return nn.Sequential(hidden, nn.ReLU(), _linear(head.weight, head.bias))
    raise NoMaps("the votes of nearest neighbours come from other images, not from regions of this one")


def _linear(weight_KD: npt.NDArray[np.float32], bias_K: npt.NDArray[np.float32]) -> nn.Linear:
    layer = nn.Linear(weight_KD.shape[1], weight_KD.shape[0])
    layer.load_state_dict({"weight": torch.from_numpy(weight_KD.copy()), "bias": torch.from_numpy(bias_K.copy())})
    return layer.requires_grad_(False)


def _no_maps(network: nn.Module, found: str) -> NoMaps:
    known: Any = getattr(network, "pretrained_cfg", {})
    name = known.get("architecture") or type(network).__name__
    return NoMaps(f"the features of {name} have no places in the image ({found})")
