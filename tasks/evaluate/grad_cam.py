"""Where a network's features say what its head says: Grad-CAM (Selvaraju et al. 2017), as captum computes it.

B images, C channels, H x W pixels, D features, h x w places of the last maps, T tokens, K classes. Imports torch, which
takes seconds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import nn

from ..common.backbones.network import map_axes
from ..common.core.errors import GraftError
from ..common.heads.base import Head
from ..common.heads.linear import LinearHead
from ..common.heads.mlp import MlpHead

Heat = npt.NDArray[np.float32]
"""float32 (H, W): 1 where most of what speaks for the answer is, 0 where nothing is."""


class NoMaps(GraftError):
    """A network or a head that has no place from which its answer comes."""


class Looking(nn.Module):
    """A backbone and what follows it, in which the maps of the last places go through `maps`, as (B, D, h, w).

    They are what the network pools. Where it pools a class token, no other token has any effect any more: then it is
    what its last block sees.

    Args:
        network: with timm's `forward_features` and `forward_head`.
        last: from features (B, D) to logits (B, K), or the number (B, 1).
        size: (C, H, W) of its input.

    Raises:
        NoMaps: its features are of no places.
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
            self._look_before_the_last_block()
        if not torch.allclose(self(trial_BCHW), last(network(trial_BCHW)), rtol=1e-3, atol=1e-3):
            raise _no_maps(network, "its answer is not made of its last output alone")

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
        """Whether the answer depends on any token that stands for a place."""
        tokens_BTD = self._features(x_BCHW).detach().requires_grad_()
        (gradient_BTD,) = torch.autograd.grad(self._pool(tokens_BTD).square().sum(), tokens_BTD)
        first, _, _ = self._grid(tokens_BTD.shape[1])
        return bool(gradient_BTD[:, first:].any())

    def _look_before_the_last_block(self) -> None:
        blocks: Any = getattr(self.network, "blocks", None)
        norm = getattr(blocks[-1], "norm1", None) if blocks else None
        if norm is None:
            raise _no_maps(self.network, "tokens of which only the class token is used")
        norm.register_forward_hook(lambda _module, _inputs, tokens_BTD: self._through(tokens_BTD))
        self._pools_maps = False

    def _through(self, features: torch.Tensor) -> torch.Tensor:
        """Sends what stands for places through `maps`, and puts it back where it was."""
        if self._axes == (2, 3):
            return self.maps(features)  # type: ignore[no-any-return]
        if self._axes == (1, 2):
            return self.maps(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]
        first, h, w = self._grid(features.shape[1])
        maps_BDhw = features[:, first:].transpose(1, 2).reshape(len(features), -1, h, w)
        return torch.cat([features[:, :first], self.maps(maps_BDhw).flatten(2).transpose(1, 2)], dim=1)

    def _grid(self, tokens: int) -> tuple[int, int, int]:
        """(tokens that stand for no place and come first, h, w).

        Raises:
            NoMaps: the others do not fill a grid of the image's shape.
        """
        _, height, width = self._size
        for first in (int(getattr(self.network, "num_prefix_tokens", 0)), 0, 1):
            places = tokens - first
            h = round((places * height / width) ** 0.5)
            w = round((places * width / height) ** 0.5)
            if h * w == places > 1:
                return first, h, w
        raise _no_maps(self.network, f"{tokens} tokens, which are no grid")


def look_into(network: nn.Module, head: Head, size: tuple[int, int, int]) -> Looking:
    """A backbone with its head, to look into.

    Raises:
        NoMaps: their answer comes from no places, or they are built in a way that is not known here.
    """
    last = last_layers(head)
    try:
        return Looking(network, last, size)
    except NoMaps:
        raise
    except Exception as error:  # each architecture that is built otherwise fails in its own way
        raise _no_maps(network, " ".join(str(error).split())[:200] or type(error).__name__) from error


def heat_maps(looking: Looking, x_BCHW: torch.Tensor, target_B: list[int]) -> list[Heat]:
    """Of each image, what speaks for its output number `target_B`, scaled so that the most is 1; all 0 where nothing
    does.

    Args:
        x_BCHW: normalised.
    """
    attributed: Any = LayerGradCam(looking, looking.maps).attribute(
        x_BCHW, target=torch.tensor(target_B), relu_attributions=True
    )
    size = (x_BCHW.shape[3], x_BCHW.shape[2])
    return [_enlarged(map_hw, size) for map_hw in attributed.detach()[:, 0].float().numpy()]


def _enlarged(map_hw: Heat, size: tuple[int, int]) -> Heat:
    """To the image's (width, height): smooth, since a place sees more than the pixels below it."""
    large_HW = np.asarray(
        Image.fromarray(map_hw / max(float(map_hw.max()), 1e-12)).resize(size, Image.Resampling.BICUBIC)
    )
    return (large_HW / max(float(large_HW.max()), 1e-12)).clip(0, 1).astype(np.float32)


def last_layers(head: Head) -> nn.Module:
    """What a head does before it makes probabilities of it.

    Raises:
        NoMaps: it is made of no layers.
    """
    if isinstance(head, LinearHead):
        return _linear(head.weight, head.bias)
    if isinstance(head, MlpHead):
        hidden = _linear(head.hidden_weight, head.hidden_bias)
        return nn.Sequential(hidden, nn.ReLU(), _linear(head.weight, head.bias))
    raise NoMaps("the votes of neighbours come from other images, not from places in this one")


def _linear(weight_KD: npt.NDArray[np.float32], bias_K: npt.NDArray[np.float32]) -> nn.Linear:
    layer = nn.Linear(weight_KD.shape[1], weight_KD.shape[0])
    layer.load_state_dict({"weight": torch.from_numpy(weight_KD.copy()), "bias": torch.from_numpy(bias_K.copy())})
    return layer.requires_grad_(False)


def _no_maps(network: nn.Module, found: str) -> NoMaps:
    known: Any = getattr(network, "pretrained_cfg", {})
    name = known.get("architecture") or type(network).__name__
    return NoMaps(f"the features of {name} are of no places in the image ({found})")
