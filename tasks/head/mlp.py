"""One hidden layer with dropout, trained in torch. N rows, D features, H hidden units, K classes or 1 number.

AdamW (Loshchilov & Hutter 2019) at a constant rate on standardised features, in float32 on the processor; dropout
(Srivastava et al. 2014) on the hidden units. The number of epochs is what ends the training; it is one of the settings
that held-out rows choose, which is early stopping. Everything random comes from one seeded generator.

torch is imported only where training begins: prediction and the other heads do not need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.core.blocks import blocks
from ..common.core.torch_threads import one_torch_thread
from ..common.data.manifest import Task
from ..common.data.matrix import Matrix
from ..common.heads.base import Head
from ..common.heads.mlp import MlpHead
from ..common.solvers.blas import one_thread_a_product
from ..common.solvers.principal_axes import standard
from .estimator import Estimator, Examples, Trained, Walk

if TYPE_CHECKING:
    import torch


class Mlp(Estimator):
    """A row's weight weighs its part in the loss of its batch.

    Args:
        hidden: units of the hidden layer, H.
        dropout: the share of hidden units that are left out at each step.
        weight_decay: AdamW's.
        epochs: passes over the rows.
        learning_rate: AdamW's.
        batch_size: rows a step.
        seed: another one gives another start, order and dropout.
    """

    def __init__(
        self,
        classes: list[str],
        task: Task = "classification",
        *,
        hidden: int = 256,
        dropout: float = 0.5,
        weight_decay: float = 1e-2,
        epochs: int = 20,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, task)
        self.hidden = hidden
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.seed = seed

    def _fit(self, examples: Examples) -> Head:
        *_, (head, _) = islice(self.train(examples), self.epochs)
        return head

    def train(self, examples: Examples) -> Iterator[tuple[MlpHead, float]]:
        """After each epoch, without end: the head, and the mean loss of the epoch's steps, dropout included."""
        course = _Course(self, examples)
        while True:
            with _one_thread():
                loss = course.epoch()
                head = course.head()
            yield head, loss


def path(classes: list[str], task: Task, fixed: dict[str, Any], settings: dict[str, Any], epochs: int) -> Walk:
    """Epoch after epoch of one training; `fixed` and `settings` are of the constructor. The training loss has dropout
    in it."""

    def walk(examples: Examples, held_MD: Matrix) -> Iterator[Trained]:
        training = Mlp(classes, task, **fixed, **settings).train(examples)
        for epoch, (head, loss) in enumerate(islice(training, epochs), 1):
            with _one_thread():
                output = head.output(held_MD)
            yield Trained({**settings, "epochs": epoch}, head, output, loss, iterations=1)

    return walk


class _Course:
    """A training under way."""

    def __init__(self, how: Mlp, examples: Examples) -> None:
        import torch

        self._how = how
        features_ND, weight_N = examples.features_ND, examples.weight_N
        self._mean_D, self._scale_D = standard(features_ND, weight_N)
        self._x_ND = torch.empty(features_ND.shape, dtype=torch.float32)
        for rows in blocks(len(weight_N)):
            self._x_ND[rows] = torch.from_numpy(((features_ND[rows] - self._mean_D) / self._scale_D).astype(np.float32))
        self._centre, self._unit = _standard(examples) if how.task == "regression" else (0.0, 1.0)
        target = examples.target
        if how.task == "regression":
            target = ((target - self._centre) / self._unit)[:, None]
        self._target = torch.from_numpy(target if how.task == "classification" else target.astype(np.float32))
        self._weight_N = torch.from_numpy((weight_N / weight_N.mean()).astype(np.float32))
        self._random = torch.Generator().manual_seed(how.seed)
        d, k = features_ND.shape[1], len(how.classes) or 1
        self._hidden_HD, self._hidden_H = self._start((how.hidden, d), d), self._start((how.hidden,), d)
        self._out_KH, self._out_K = self._start((k, how.hidden), how.hidden), self._start((k,), how.hidden)
        parameters = [self._hidden_HD, self._hidden_H, self._out_KH, self._out_K]
        self._optimiser = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=how.weight_decay)

    def _start(self, shape: tuple[int, ...], into: int) -> torch.Tensor:
        """Weights or bias as torch's own linear layers begin."""
        import torch

        reach = into**-0.5
        return torch.empty(shape).uniform_(-reach, reach, generator=self._random).requires_grad_()

    def epoch(self) -> float:
        """One pass over the rows in a new order; the mean loss, for numbers in the square of their unit."""
        import torch

        order_N = torch.randperm(len(self._x_ND), generator=self._random)
        total = 0.0
        for rows in torch.split(order_N, self._how.batch_size):
            loss = (self._loss(rows) * self._weight_N[rows]).mean()
            self._optimiser.zero_grad()
            torch.autograd.backward(loss)
            self._optimiser.step()
            total += loss.item() * len(rows)
        return total / len(order_N) * self._unit**2

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Of each row, (B,)."""
        import torch
        from torch.nn import functional

        hidden_BH = (self._x_ND[rows] @ self._hidden_HD.T + self._hidden_H).relu()
        kept_BH = torch.rand(hidden_BH.shape, generator=self._random) >= self._how.dropout
        output_BK = (hidden_BH * kept_BH / (1 - self._how.dropout)) @ self._out_KH.T + self._out_K
        if self._how.task == "classification":
            return functional.cross_entropy(output_BK, self._target[rows], reduction="none")
        if self._how.task == "regression":
            return (output_BK - self._target[rows]).square().mean(dim=1)
        return functional.binary_cross_entropy_with_logits(output_BK, self._target[rows], reduction="none").mean(dim=1)

    def head(self) -> MlpHead:
        """What has been learned so far, for features as given."""
        hidden_HD, hidden_H, out_KH, out_K = (
            tensor.detach().numpy().astype(np.float64)
            for tensor in (self._hidden_HD, self._hidden_H, self._out_KH, self._out_K)
        )
        hidden_HD = hidden_HD / self._scale_D
        return MlpHead(
            hidden_HD.astype(np.float32),
            (hidden_H - hidden_HD @ self._mean_D).astype(np.float32),
            (out_KH * self._unit).astype(np.float32),
            (out_K * self._unit + self._centre).astype(np.float32),
            self._how.classes,
            self._how.task,
        )


def _one_thread() -> ExitStack:
    """Steps of so few rows are four times faster on one of two cores, and have the same bits on any number of them."""
    stack = ExitStack()
    stack.enter_context(one_torch_thread())
    stack.enter_context(one_thread_a_product())
    return stack


def _standard(examples: Examples) -> tuple[float, float]:
    """Mean and deviation of the numbers; a deviation of 1 where all are the same."""
    mean = float(np.average(examples.target, weights=examples.weight_N))
    variance = float(np.average((examples.target - mean) ** 2, weights=examples.weight_N))
    return mean, variance**0.5 or 1.0
