"""The optimizer, the schedule of its rate, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .param_groups import Group
from .params import FinetuneParams


def make_optimizer(params: FinetuneParams, groups: list[Group]) -> torch.optim.Optimizer:
    """Its rates are set before each step."""
    described = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups]
    if params.optimizer == "sgd":
        return torch.optim.SGD(described, lr=0.0, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(described, lr=0.0, fused=True)


def rate_at(done: float, peak: float, warmup: float) -> float:
    """The learning rate when the share `done` of all steps is done: a linear rise to `peak`, then half a cosine down to
    zero."""
    if done < warmup:
        return peak * (done / warmup)
    fall = (done - warmup) / (1 - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * fall))


class WeightAverage:
    """Moving averages of a network's weights.

    Args:
        keep: how much of the average remains at each step; 0 for no average.

    Attributes:
        values: the averages; none if `keep` is 0.
    """

    def __init__(self, network: nn.Module, keep: float) -> None:
        self._live = [value for value in network.state_dict().values() if value.is_floating_point()]
        self._keep = keep
        self.values = [value.clone() for value in self._live] if keep else []

    def update(self, step: int) -> None:
        """Takes in the weights after a step, numbered from 0; the first steps count for more."""
        if self.values:
            keep = min(self._keep, (1 + step) / (10 + step))
            get_ema_multi_avg_fn(keep)(self.values, self._live, step)  # type: ignore[no-untyped-call]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The network has the averages as its weights within the block."""
        kept = [value.clone() for value in self._live] if self.values else []
        with torch.no_grad():
            for value, average in zip(self._live, self.values):
                value.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for value, back in zip(self._live, kept):
                    value.copy_(back)
