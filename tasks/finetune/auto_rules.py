"""The values that `auto` stands for, by the number of training images: pure rules.

After the BiT-HyperRule (Kolesnikov et al. 2020), which sets steps and mixup by the number of images and leaves the rest
alone. Theirs counts in steps of 512 images on accelerators; here it is images seen, with fewer of them, because
training starts from the head's solution (LP-FT) and not from a random last layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .params import FinetuneParams

SEEN = {"pretrained": 15_000, "scratch": 60_000}
"""Images that training sees in all epochs together; each at least `FEWEST` and at most `MOST` times."""

FEWEST = {"pretrained": 4, "scratch": 15}
MOST = {"pretrained": 50, "scratch": 100}

PATIENT = 3
"""Training ends if a third of its epochs, and at least `LEAST`, bring no better validation loss: before the rate has
fallen, a plateau says little."""

LEAST = 5

LARGE = 20_000
"""Training images from which mixup helps and does not hinder, as in the BiT-HyperRule; and from which, with as many
steps, rates are halved and fall faster from layer to layer: with those for few images, 54,000 pictures of clothes came
to 90.4 % on validation in 4 epochs, with these to 94.6 in 6 (docs/explanation/benchmarks.md)."""

DECAY, DECAY_LARGE = 0.9, 0.85

RATES = {
    ("adamw", "pretrained"): 2e-3,
    ("adamw", "scratch"): 2e-3,
    ("sgd", "pretrained"): 2e-2,
    ("sgd", "scratch"): 1e-1,
}
"""The last layer's highest rate for `RATE_BATCH` images a step; it grows with the batch, for SGD in proportion (Goyal
et al. 2017), for AdamW with the root (Malladi et al. 2022)."""

RATE_BATCH = 32


@dataclass(frozen=True)
class Plan:
    """The settings of a training; `ema` is the share of the average that is kept at each step, 0 for no average."""

    epochs: int
    patience: int
    learning_rate: float
    layer_decay: float
    batch_norm: str
    mixup: float
    cutmix: float
    ema: float
    views: int


def plan(params: FinetuneParams, train_images: int) -> Plan:
    scratch = params.init == "scratch"
    epochs = params.epochs if params.epochs != "auto" else _epochs(params.init, train_images)
    growth = params.batch_size / RATE_BATCH
    rate = RATES[params.optimizer, params.init] * (growth if params.optimizer == "sgd" else math.sqrt(growth))
    large = not scratch and train_images >= LARGE
    mixes = 0.2 if scratch else 0.1 if train_images >= LARGE else 0.0
    cuts = 1.0 if scratch and train_images >= LARGE else 0.0
    return Plan(
        epochs=epochs,
        patience=max(LEAST, epochs // PATIENT) if params.patience == "auto" else params.patience,
        learning_rate=(rate / 2 if large else rate) if params.learning_rate == "auto" else params.learning_rate,
        layer_decay=_decay(params, scratch=scratch, large=large),
        batch_norm=("running" if scratch else "frozen") if params.batch_norm == "auto" else params.batch_norm,
        mixup=mixes if params.mixup == "auto" else params.mixup,
        cutmix=cuts if params.cutmix == "auto" else params.cutmix,
        ema=_ema(train_images // params.batch_size) if params.ema == "auto" else params.ema,
        views=epochs if params.views == "auto" else params.views,
    )


def _decay(params: FinetuneParams, *, scratch: bool, large: bool) -> float:
    if scratch:
        return 1.0
    return (DECAY_LARGE if large else DECAY) if params.layer_decay == "auto" else params.layer_decay


def _epochs(init: str, train_images: int) -> int:
    return min(max(math.ceil(SEEN[init] / train_images), FEWEST[init]), MOST[init])


def _ema(steps_an_epoch: int) -> float:
    """An average over about one epoch."""
    return min(1 - 1 / max(steps_an_epoch, 1), 0.9999)
