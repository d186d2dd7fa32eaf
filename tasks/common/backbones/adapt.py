"""A network with its weights, made to take images of another size or number of channels than in its pre-training.

Imports torch and timm, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import Any

import timm
import torch
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame
from timm.models import adapt_input_conv

from ..core.errors import ParamsError
from .spec import Form

RGB = 3


def adapt(model: torch.nn.Module, backbone: str, form: Form) -> torch.nn.Module:
    """A timm network, which has its weights and takes RGB images of the size of its pre-training, for images of `form`.

    Raises:
        ParamsError: the architecture does not take such images.
    """
    size = size_of(model, form)
    if size is not None and _config(model).get("fixed_input_size"):
        model = _of_size(model, backbone, size)
    if form.channels != RGB:
        _adapt_channels(model, backbone, form.channels)
    return model


def size_of(model: torch.nn.Module, form: Form) -> tuple[int, int] | None:
    """(height, width) of the images that `form` asks for; None: as in pre-training."""
    if form.image_size != "test":
        return form.image_size
    tested = _config(model).get("test_input_size")
    return None if tested is None else (tested[1], tested[2])


def over_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """The means or standard deviations of red, green and blue, for images of another number of channels.

    For grey, whose weights are the sums of those of the three, their mean. For more, repeated as the weights are: red,
    green, blue, red, ...
    """
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(islice(cycle(values), channels))


def _adapt_channels(model: torch.nn.Module, backbone: str, channels: int) -> None:
    """The first convolutions' weights as timm's `in_chans` makes them: summed for one channel, so that grey does what
    equal red, green and blue do; otherwise repeated in order and scaled by 3 / channels."""
    names = _config(model).get("first_conv") or ()
    if not names:
        raise _channels_refused(backbone, channels, "timm does not say which convolution sees the image")
    try:
        for name in [names] if isinstance(names, str) else names:
            _widen(model.get_submodule(name), channels)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise _channels_refused(backbone, channels, f"timm cannot change its first convolution {name}") from error
    if hasattr(model, "in_chans"):
        model.in_chans = channels  # type: ignore[assignment]


def _widen(conv: Any, channels: int) -> None:
    with torch.no_grad():
        weight = adapt_input_conv(channels, conv.weight)
    if isinstance(conv, ScaledStdConv2d | ScaledStdConv2dSame):  # whose scale is 1 / sqrt(inputs of an output)
        conv.scale *= (conv.weight[0].numel() / weight[0].numel()) ** 0.5
    conv.weight = torch.nn.Parameter(weight)
    conv.in_channels = weight.shape[1]


def _of_size(model: torch.nn.Module, backbone: str, size: tuple[int, int]) -> torch.nn.Module:
    """The network created for images of `size`; timm's loader brings the weights over, and interpolates position
    embeddings where it knows how to."""
    weights = {"state_dict": model.state_dict()}
    try:
        other: torch.nn.Module = timm.create_model(
            backbone, pretrained=True, img_size=size, pretrained_cfg_overlay=weights
        )
    except Exception as error:  # an architecture without this argument, or with conditions of its own
        raise _size_refused(backbone, size, _line(error), _sizes_like(model)) from error
    other.pretrained_cfg = other.default_cfg = model.pretrained_cfg  # which do not hold the weights a second time
    return other


def check_input(model: torch.nn.Module, backbone: str, form: Form) -> None:
    """Tries whether a network that was adapted works, on an image of zeros.

    Raises:
        ParamsError: it does not; says the least size with which it does, where there is one.
    """
    size = size_of(model, form)
    if form.channels == RGB and size is None:
        return
    fault = _fault(model, form.channels, size or _own_size(model))
    if fault and size is None:
        raise _channels_refused(backbone, form.channels, fault)
    if fault and size is not None:
        raise _size_refused(backbone, size, fault, _sizes_like(model, form.channels))


def _fault(model: torch.nn.Module, channels: int, size: tuple[int, int]) -> str:
    try:
        with torch.inference_mode():
            model(torch.zeros(1, channels, *size))
    except Exception as error:  # noqa: BLE001  (each layer has its own way to refuse a shape)
        return _line(error)
    return ""


def _sizes_like(model: torch.nn.Module, channels: int = RGB) -> str:
    own = _own_size(model)
    if _config(model).get("fixed_input_size"):
        return f"{_named(own)} as in pre-training, or another size that timm can make this architecture for"
    least, enough = 1, min(own)
    while least < enough:  # a convolutional network that works with a size works with every larger one
        middle = (least + enough) // 2
        least, enough = (middle + 1, enough) if _fault(model, channels, (middle, middle)) else (least, middle)
    return f"at least {_named((least, least))}; {_named(own)} in pre-training"


def _config(model: torch.nn.Module) -> dict[str, Any]:
    """What timm says of the network's pre-training."""
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return config


def _own_size(model: torch.nn.Module) -> tuple[int, int]:
    """(height, width) of the network's pre-training."""
    _, height, width = _config(model)["input_size"]
    return height, width


def _named(size: Iterable[int]) -> str:
    return " x ".join(map(str, size))


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]


def _channels_refused(backbone: str, channels: int, reason: str) -> ParamsError:
    return ParamsError(
        f"params.yaml: the backbone {backbone} cannot take images of `preprocess.channels`: {reason}",
        got=channels,
        allowed="3 with this backbone",
        todo="name another one in `features.backbone`, or change `preprocess.channels`",
    )


def _size_refused(backbone: str, size: tuple[int, int], reason: str, allowed: str) -> ParamsError:
    return ParamsError(
        f"params.yaml: the backbone {backbone} cannot take images of `features.image_size`: {reason}",
        got=f"{_named(size)} (height x width)",
        allowed=allowed,
        todo="change `features.image_size`, or name another backbone in `features.backbone`",
    )
