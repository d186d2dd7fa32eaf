"""A network's maps or tokens made into one feature vector. B images, D features, h x w places, T tokens.

Imports torch, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import ParamsError
from .spec import Output

TOKENS = ("class_token", "patch_mean", "class_and_patch_mean")
"""Values of `features.output` that only transformers have."""


def pooled(network: nn.Module, backbone: str, output: Output, shape: tuple[int, int, int]) -> nn.Module:
    """The network with another pooling, if `output` asks for one.

    Args:
        network: with timm's `forward_features`, in evaluation mode.
        shape: (C, H, W) of an image.

    Raises:
        ParamsError: the network has no such maps or tokens.
    """
    if output == "pooled":
        return Pooled(network, backbone, shape)
    return Tokens(network, backbone, output, shape) if output in TOKENS else network


class _Body(nn.Module):
    """A timm network up to its last maps or tokens, without the layers that only another pooling or a classifier needs.

    Attributes:
        shape: of the last maps or tokens, of a batch of one; empty where they are not one tensor.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, int, int], also: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network
        self.shape = _leave_out(network, shape, also)

    @property
    def pretrained_cfg(self) -> Any:
        return self.network.pretrained_cfg

    @property
    def num_features(self) -> Any:
        return self.network.num_features

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The last maps or tokens, as timm's networks have this method."""
        found: torch.Tensor = self.network.forward_features(x_BCHW)  # type: ignore[operator]
        return found

    def forward_head(self, found: torch.Tensor) -> torch.Tensor:
        """What timm's networks pool and classify in this method is only pooled."""
        raise NotImplementedError


class Pooled(_Body):
    """The mean over places of a network's last feature maps.

    Raises:
        ParamsError: the network has no maps, but tokens or several branches.
    """

    def __init__(self, network: nn.Module, backbone: str, shape: tuple[int, int, int]) -> None:
        super().__init__(network, shape)
        axes = map_axes(self.shape, network.num_features)  # type: ignore[arg-type]
        if axes is None:
            other = " or `patch_mean`, the mean of its tokens" if len(self.shape) == 3 else ""
            raise ParamsError(
                f"params.yaml: `features.output: pooled` needs feature maps, which {backbone} does not have",
                got=f"its last output is of shape {tuple(self.shape[1:])}",
                allowed="a network whose last output is (features, height, width)",
                todo=f"set `features.output: pre_logits`{other}",
            )
        self.axes = axes

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean(self.axes)


class Tokens(_Body):
    """A transformer's class token, the mean of its patch tokens, or the first and then the second, float32 (B, D) or
    (B, 2 D).

    The two are what timm calls the poolings `token` and `avg`; side by side they are the features that DINOv2 was
    evaluated with (Oquab et al. 2023). Registers and other tokens without a place take no part in the mean. A network
    that normalises what it has pooled (`fc_norm`) does so here as well.

    Raises:
        ParamsError: the network has no tokens, or no class token.
    """

    def __init__(self, network: nn.Module, backbone: str, output: Output, shape: tuple[int, int, int]) -> None:
        super().__init__(network, shape, also=("fc_norm",))
        self.output, self.num_prefix_tokens = output, int(getattr(network, "num_prefix_tokens", 0))
        has_class_token = getattr(network, "cls_token", None) is not None
        if len(self.shape) != 3 or self.shape[2] != self.num_features:
            raise _refused(
                output,
                f"tokens, which {backbone} does not have",
                f"its last output is of shape {tuple(self.shape[1:])}",
            )
        if has_class_token and not self.num_prefix_tokens:
            raise _refused(output, f"patch tokens, which timm does not tell apart in {backbone}", "a class token")
        if output != "patch_mean" and not has_class_token:
            raise _refused(output, f"a class token, which {backbone} does not have", "patch tokens", "patch_mean, ")

    @property
    def blocks(self) -> Any:
        """Of the network, for Grad-CAM: with a class token, only the input of the last block has an effect."""
        return self.network.blocks

    def forward_head(self, tokens_BTD: torch.Tensor) -> torch.Tensor:
        if self.output == "class_token":
            return self._normalised(tokens_BTD[:, 0])
        mean_BD = self._normalised(tokens_BTD[:, self.num_prefix_tokens :].mean(1))
        if self.output == "patch_mean":
            return mean_BD
        return torch.cat([self._normalised(tokens_BTD[:, 0]), mean_BD], dim=1)

    def _normalised(self, pooled_BD: torch.Tensor) -> torch.Tensor:
        norm: Any = getattr(self.network, "fc_norm", None)
        return pooled_BD if norm is None else norm(pooled_BD)  # type: ignore[no-any-return]


def map_axes(shape: Sequence[int], features: int) -> tuple[int, int] | None:
    """The axes of height and width in the shape of a network's last maps: (B, D, h, w), or (B, h, w, D) in some; found
    by the axis of its `features` D, as not every network states it. None: the shape is not that of maps."""
    places = {1: (2, 3), len(shape) - 1: (1, 2)}
    return next((axes for axis, axes in places.items() if len(shape) == 4 and shape[axis] == features), None)


def _leave_out(network: Any, shape: tuple[int, int, int], keep: Sequence[str]) -> list[int]:
    """Leaves out the children that the last maps or tokens do not need, and returns the shape of these.

    Only what has parameters; and what is not called as a module may be needed all the same, as EVA02's rotary embedding
    is, so each is tried.
    """
    x_1CHW = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    called: set[int] = set()
    hooks = [part.register_forward_hook(lambda part, *_: called.add(id(part))) for part in network.modules()]
    with torch.inference_mode():
        found = network.forward_features(x_1CHW)
    for hook in hooks:
        hook.remove()
    if not isinstance(found, torch.Tensor):
        return []
    for name, part in list(network.named_children()):
        idle = not called & {id(module) for module in part.modules()} and any(True for _ in part.parameters())
        if idle and name not in keep:
            setattr(network, name, nn.Identity())
            if not _gives(network, x_1CHW, found):
                setattr(network, name, part)
    return list(found.shape)


def _gives(network: Any, x_1CHW: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        with torch.inference_mode():
            return torch.equal(network.forward_features(x_1CHW), expected)
    except Exception:  # noqa: BLE001  (what is left out may be asked for anything)
        return False


def _refused(output: Output, needs: str, got: str, instead: str = "") -> ParamsError:
    return ParamsError(
        f"params.yaml: `features.output: {output}` needs {needs}",
        got=got,
        allowed=f"{instead}pre_logits, or another network",
        todo="change `features.output`, or name another network in `features.backbone`",
    )
