"""The values that `auto` stands for, by the number of training images: pure rules.

After the BiT-HyperRule (Kolesnikov et al. 2020), which sets steps and mixup by the number of images and leaves the rest
alone. Theirs counts in steps of 512 images on accelerators; here it is images seen, with fewer of them, because
training starts from the head's solution (LP-FT) and not from a random last layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
"""Training images from which mixup helps and does not hinder, as in the BiT-HyperRule, and from which rates fall faster
from layer to layer."""

DECAY, DECAY_LARGE = 0.9, 0.85

Architecture = Literal["convolution", "transformer"]

RATES = {
    ("adamw", "convolution"): 1e-3,
    ("adamw", "transformer"): 1e-5,
    ("sgd", "convolution"): 1e-2,
    ("sgd", "transformer"): 1e-4,
}
"""The last layer's peak rate for `RATE_BATCH` images a step, from pre-trained weights and the head's solution; it grows
with the batch, for SGD in proportion (Goyal et al. 2017), for AdamW with the root (Malladi et al. 2022)."""

SCRATCH_RATES = {"adamw": 2e-3, "sgd": 1e-1}

TRIED = (0.1, 10**-0.5, 1.0, 10**0.5)
"""Times the default: the rates that `auto` tries on cached maps."""

TRIAL, TRIAL_SHARE = 200, 1 / 5
"""Steps of a short training that tries a rate: at most so many, and at most this share of the whole training's."""

RATE_BATCH = 32


@dataclass(frozen=True)
class Plan:
    """The settings of a training.

    Attributes:
        tried_rates: short trainings choose the learning rate among them; if there are none, it is `learning_rate`.
        ema: the share of the average that is kept at each step, 0 for no average.
        stop: the epoch after which training ends though its schedule goes on; none: the last.
    """

    epochs: int
    patience: int
    learning_rate: float
    tried_rates: tuple[float, ...]
    layer_decay: float
    batch_norm: str
    mixup: float
    cutmix: float
    ema: float
    views: int
    stop: int | None = None

    def trial_steps(self, steps_an_epoch: int) -> int:
        """Steps of a short training that tries a rate."""
        return max(1, min(TRIAL, int(TRIAL_SHARE * self.epochs * steps_an_epoch)))


def plan(params: FinetuneParams, train_images: int, architecture: Architecture = "convolution") -> Plan:
    scratch = params.init == "scratch"
    epochs = params.epochs if params.epochs != "auto" else _epochs(params.init, train_images)
    rate = _rate(params, architecture)
    large = not scratch and train_images >= LARGE
    tries = params.learning_rate == "auto" and params.trained == "last_stage"
    mixes = 0.2 if scratch else 0.1 if train_images >= LARGE else 0.0
    cuts = 1.0 if scratch and train_images >= LARGE else 0.0
    return Plan(
        epochs=epochs,
        patience=max(LEAST, epochs // PATIENT) if params.patience == "auto" else params.patience,
        learning_rate=rate,
        tried_rates=tuple(rate * times for times in TRIED) if tries else (),
        layer_decay=_decay(params, scratch=scratch, large=large),
        batch_norm=("running" if scratch else "frozen") if params.batch_norm == "auto" else params.batch_norm,
        mixup=mixes if params.mixup == "auto" else params.mixup,
        cutmix=cuts if params.cutmix == "auto" else params.cutmix,
        ema=_ema(train_images // params.batch_size) if params.ema == "auto" else params.ema,
        views=epochs if params.views == "auto" else params.views,
    )


def _rate(params: FinetuneParams, architecture: Architecture) -> float:
    if params.learning_rate != "auto":
        return params.learning_rate
    growth = params.batch_size / RATE_BATCH
    own = SCRATCH_RATES[params.optimizer] if params.init == "scratch" else RATES[params.optimizer, architecture]
    return own * (growth if params.optimizer == "sgd" else math.sqrt(growth))


def _decay(params: FinetuneParams, *, scratch: bool, large: bool) -> float:
    if scratch:
        return 1.0
    return (DECAY_LARGE if large else DECAY) if params.layer_decay == "auto" else params.layer_decay


def _epochs(init: str, train_images: int) -> int:
    return min(max(math.ceil(SEEN[init] / train_images), FEWEST[init]), MOST[init])


def _ema(steps_an_epoch: int) -> float:
    """An average over about one epoch."""
    return min(1 - 1 / max(steps_an_epoch, 1), 0.9999)
