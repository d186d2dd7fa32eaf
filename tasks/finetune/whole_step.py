"""What the images of a step have in common, in every process and part of the step: random numbers and the
statistics of batch norm. B images a step, b of them in a part; C channels.

Without it each part would draw its own dropout and stochastic depth, and each process would normalise by its own
images: another number of processes would be another training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

CHANNELWISE = (F.dropout1d, F.dropout2d, F.dropout3d)
"""They drop whole channels, so their noise has no places."""


class WholeStep(TorchFunctionMode):
    """Within the block a network in training gives its images what it would give them in one batch of the whole step.

    Covers dropout and whatever draws with `bernoulli_` per image, as timm's stochastic depth and DropBlock do; batch
    norm where several processes share the step. Random numbers of any other kind are those of the process.

    Args:
        rows_b: the places of this part's images in the step.
        count: B.
        seed: of the step.
        processes: which share the step; all of them must run the same parts.

    Attributes:
        used: whether the network has asked for any of this.
    """

    def __init__(self, rows_b: npt.NDArray[np.int64], count: int, seed: int, processes: int, device: torch.device):
        super().__init__()
        self._rows_b = torch.from_numpy(rows_b).to(device)
        self._count, self._processes = count, processes
        self._generator = torch.Generator(device).manual_seed(seed)
        self.used = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.bernoulli_:
            return args[0].copy_(self._kept(args[0].shape, args[0], *args[1:], **kwargs))
        if func is F.dropout or func in CHANNELWISE:
            return self._drop(func, *args, **kwargs)
        if func is F.batch_norm and self._processes > 1:
            return self._normalise(*args, **kwargs)
        return func(*args, **kwargs)

    def _kept(self, shape: torch.Size, like: torch.Tensor, p: float = 0.5) -> torch.Tensor:
        """Ones with probability p, otherwise zeros: drawn for the whole step; this part takes its rows."""
        self.used = True
        each, rest = divmod(shape[0], max(len(self._rows_b), 1))  # of an image: windows of tokens, for example
        if rest or not each:
            return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(p, generator=self._generator)
        every = torch.empty(self._count, each, *shape[1:], dtype=like.dtype, device=like.device)
        return every.bernoulli_(p, generator=self._generator)[self._rows_b].reshape(shape)

    def _drop(
        self,
        func: Callable[..., Any],
        input: torch.Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        if not training or not 0 < p < 1:
            return func(input, p=p, training=training, inplace=inplace)
        shape = torch.Size([*input.shape[:2], *[1] * (input.ndim - 2)]) if func in CHANNELWISE else input.shape
        return input * self._kept(shape, input, 1 - p).div_(1 - p)

    def _normalise(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        """By the mean and the variance over all processes, in two sums: one of squares would lose digits."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        self.used = True
        x, wide = input.float(), (1, -1, *[1] * (input.ndim - 2))
        axes = [0, *range(2, x.ndim)]
        sums = _over_processes(torch.cat([x.sum(axes), x.new_tensor([x.numel() / x.shape[1]])]))
        values = sums[-1].detach()
        mean_C = sums[:-1] / values
        x = x - mean_C.view(wide)
        var_C = _over_processes(x.square().sum(axes)) / values
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
                running_var.lerp_((var_C * values / (values - 1)).to(running_var.dtype), momentum)
        x = x * torch.rsqrt(var_C + eps).view(wide)
        if weight is not None:
            x = x * weight.view(wide)
        if bias is not None:
            x = x + bias.view(wide)
        return x.to(input.dtype)


def _over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of the processes' values; gradients are summed likewise."""
    total: torch.Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
    return total
