"""A network up to the depths that are needed, and what becomes of their maps. Imports torch, which takes seconds.

B images, C channels, H x W places, T tokens, D = the length of a flat map.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..backbones.layers import Reached, is_channels_first
from ..backbones.pooling import Pooled, Tokens
from ..core.errors import ParamsError
from .depths import modules_for
from .form import Level, MapForm, Part, Wanted

SEED = 0
"""Of the projections: the same in every project."""

SMOOTH = 3
"""Places a side of the window whose mean a patch is, as in PatchCore (Roth et al. 2022)."""


class MapNetwork(nn.Module):
    """From normalised float32 (B, C, n H, n W) to maps as one flat vector each, (B, D), for n x n tiles.

    Args:
        network: timm's, in evaluation mode.
        shape: of an image that it takes, (C, H, W).

    Attributes:
        form: of a map.

    Raises:
        ParamsError: the network has no such depths, or its tokens have no places.
    """

    def __init__(self, network: nn.Module, backbone: str, wanted: Wanted, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.network = network.network if isinstance(network, Pooled | Tokens) else network
        self._backbone, self._shape, self._tiles, self._neck = backbone, shape, wanted.tiles, wanted.neck
        self._modules_used = modules_for(self.network, backbone, wanted.neck, wanted.depths, shape)
        self._found: dict[str, torch.Tensor] = {}
        for name in self._modules_used:
            self.network.get_submodule(name).register_forward_hook(self._noting(name))
        with torch.inference_mode():
            maps = self._maps(torch.zeros(1, *shape))
        self._projections = nn.ModuleList(_projections([one.shape[1] for one in maps], wanted))
        self.form = self._form([self._projected(maps, number) for number in range(len(maps))])

    def _noting(self, name: str) -> Any:
        def note(_module: nn.Module, _inputs: object, output: Any) -> None:
            found = output[0] if isinstance(output, tuple | list) else output
            self._found.setdefault(name, found.clone())  # which a later layer may change in place
            if len(self._found) == len(self._modules_used):
                raise Reached

        return note

    def _maps(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Of each depth, (B, C, H, W)."""
        self._found = {}
        try:
            self.network(x_BCHW)
        except Reached:
            found, self._found = self._found, {}
            return [self._placed(found[name], name) for name in self._modules_used]
        missing = [name for name in self._modules_used if name not in self._found]
        raise self._refused(missing[0], "it takes no part when features are computed")

    def _placed(self, found: torch.Tensor, name: str) -> torch.Tensor:
        """What a module gives as maps: tokens without a place are left out."""
        if found.ndim == 4:
            return found if is_channels_first(self.network) else found.permute(0, 3, 1, 2)
        if found.ndim != 3:
            raise self._refused(name, f"its output is of shape {tuple(found.shape[1:])}")
        tokens = int(found.shape[1])
        prefix = int(getattr(self.network, "num_prefix_tokens", 0))
        prefix = prefix if self._grid(tokens - prefix) else 0  # CaiT's class token joins the last blocks alone
        grid = self._grid(tokens - prefix)
        if grid is None:
            raise self._refused(name, f"{tokens} tokens for {self._shape[1]} x {self._shape[2]} pixels")
        tokens_BTC, (height, width) = found[:, prefix:], grid
        return tokens_BTC.transpose(1, 2).reshape(-1, tokens_BTC.shape[2], height, width)

    def _grid(self, tokens: int) -> tuple[int, int] | None:
        """Height and width of so many tokens in the picture's proportions, if they fill a grid."""
        _, height, width = self._shape
        rows = max(1, round(math.sqrt(tokens * height / width)))
        if tokens % rows or abs(rows * width - tokens // rows * height) > max(height, width):
            return None
        return rows, tokens // rows

    def _projected(self, maps: list[torch.Tensor], number: int) -> torch.Tensor:
        projected: torch.Tensor = self._projections[number](maps[number])
        return projected

    def _form(self, maps: list[torch.Tensor]) -> MapForm:
        names, n = self._modules_used, self._tiles
        levels = [
            Level(name, one.shape[1], n * one.shape[2], n * one.shape[3]) for name, one in zip(names, maps, strict=True)
        ]
        if self._neck == "pyramid":
            return MapForm("pyramid", tuple(levels), (), n)
        parts = tuple(Part(level.name, level.channels) for level in levels)
        height, width = max(level.height for level in levels), max(level.width for level in levels)
        channels = sum(part.channels for part in parts)
        return MapForm("patches", (Level(" + ".join(names), channels, height, width),), parts, n)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        maps = self._maps(self._cut(x_BCHW))
        if self._neck == "patches":
            maps = [*maps[:-1], _rooted(maps[-1])]
        maps = [self._together(self._projected(maps, number)) for number in range(len(maps))]
        if self._neck == "pyramid":
            return torch.cat([one.flatten(1) for one in maps], dim=1)
        (level,) = self.form.levels
        maps = [functional.avg_pool2d(one, SMOOTH, 1, SMOOTH // 2) for one in maps]
        maps = [_resized(one, (level.height, level.width)) for one in maps]
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1).flatten(1)

    def _cut(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, n H, n W) -> (B n n, C, H, W): tile by tile."""
        if self._tiles == 1:
            return x_BCHW
        n, (channels, height, width) = self._tiles, self._shape
        tiles = x_BCHW.reshape(-1, channels, n, height, n, width).permute(0, 2, 4, 1, 3, 5)
        return tiles.reshape(-1, channels, height, width)

    def _together(self, maps: torch.Tensor) -> torch.Tensor:
        """(B n n, C, h, w) -> (B, C, n h, n w)."""
        if self._tiles == 1:
            return maps
        n, (channels, height, width) = self._tiles, (int(size) for size in maps.shape[1:])
        tiles = maps.reshape(-1, n, n, channels, height, width).permute(0, 3, 1, 4, 2, 5)
        return tiles.reshape(-1, channels, n * height, n * width)

    def _refused(self, name: str, got: str) -> ParamsError:
        return ParamsError(
            f"params.yaml: {self._backbone} gives no maps at {name}",
            got=got,
            allowed="modules whose output is (channels, height, width), or tokens on a grid",
            todo="name other depths in `features.maps`, or another network in `features.backbone`",
        )


def _rooted(maps: torch.Tensor) -> torch.Tensor:
    """Signed square roots (Perronnin et al. 2010): nearer to normal distributions, and in distances to other patches
    the finer depths count for more."""
    return torch.sqrt(functional.relu(maps)) - torch.sqrt(functional.relu(-maps))


def _resized(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(maps.shape[2:]) == size:
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _projections(channels: list[int], wanted: Wanted) -> list[nn.Module]:
    """For each depth: for `patches` so that all together have `wanted.channels`, each in proportion to its own; the
    depths stay apart, so that a head can choose among them."""
    if wanted.neck == "pyramid":
        kept = [min(count, wanted.channels) for count in channels]
    elif sum(channels) <= wanted.channels:
        kept = channels
    else:
        share = wanted.channels / sum(channels)
        stops = [round(share * sum(channels[: number + 1])) for number in range(len(channels))]
        kept = [max(1, stop - start) for start, stop in zip([0, *stops], stops, strict=False)]
    return [
        nn.Identity() if count == less else _projection(count, less, SEED + number)
        for number, (count, less) in enumerate(zip(channels, kept, strict=True))
    ]


def _projection(channels: int, kept: int, seed: int) -> nn.Conv2d:
    """Onto random orthonormal directions, scaled so that squared distances stay what they were on average (Johnson and
    Lindenstrauss 1984)."""
    random_CK = torch.randn(channels, kept, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    orthonormal_CK, _ = torch.linalg.qr(random_CK)
    conv = nn.Conv2d(channels, kept, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_((orthonormal_CK.T * math.sqrt(channels / kept))[:, :, None, None].float())
    return conv.requires_grad_(False)
