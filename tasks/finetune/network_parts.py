"""The last layer, and the precision in which a network computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from ..common.engines.openvino import cpu_has_fast_bf16
from .batches import Array


def linear(weight_KD: Array, bias_K: Array) -> nn.Linear:
    """A linear layer with these numbers."""
    k, d = weight_KD.shape
    layer = nn.Linear(d, k)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight_KD))
        layer.bias.copy_(torch.from_numpy(bias_K))
    return layer


def autocast(wanted: Literal["auto", "f32", "bf16"], device: torch.device) -> AbstractContextManager[Any]:
    """`auto` is bf16 where the device is faster with it."""
    if wanted == "auto":
        fast = device.type == "cuda" or (device.type == "cpu" and cpu_has_fast_bf16())
        wanted = "bf16" if fast else "f32"
    return torch.autocast(device.type, torch.bfloat16) if wanted == "bf16" else nullcontext()
