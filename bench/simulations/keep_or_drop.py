"""How often fine-tuning keeps its network, by how much better the network truly is.

    python -m bench.simulations.keep_or_drop --runs 2000      both rules: today's, and the one before

The decision is the stage's own (tasks/finetune/keep.py, scaling.py); its inputs are logits drawn here. Each image has
a difficulty that both models share and a noise of each model's own; a network of `epochs` epochs has one noise for all
of them and one for each, so that a choice among epochs can go wrong. With groups, a part of everything is common to a
group. The network has the head's quality, or so much more that its accuracy is `gain` higher, and is over- or
underconfident.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.tasks.common.heads.base import softmax
from graft.tasks.common.scoring.main_metric import loss
from graft.tasks.common.scoring.paired import mid_p
from graft.tasks.finetune.keep import Held, Rule, whether_to_keep
from graft.tasks.finetune.scaling import scaled_loss

from .row import Row, noise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLASSES = 3
SIGNAL = 2.2
"""By how much the right class's score leads, in standard deviations of the noise: an accuracy of 87 %."""

OWN = 0.15
"""Share of the noise's variance that is a model's own: two models of equal quality differ on one image in ten."""

SAME = 0.7
"""Share of a network's own variance that all its epochs have in common."""

WITHIN = 0.3
"""Share of all variances that is common to a group."""

RULE = Rule("accuracy", 0.05, 0.02)


@dataclass(frozen=True)
class Images:
    """`y_N`, their units, and the noise that all models share, (N, K)."""

    y_N: Ints
    unit_N: Ints
    shared_NK: Floats


def simulate(
    runs: int,
    *,
    gain: float = 0.0,
    epochs: int = 11,
    groups: int = 0,
    images: int = 300,
    inner: int = 250,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of runs in which the network is kept: `now`, and `before` by the rule that this one replaced, which chose
    the epoch on the images of the test, by the unscaled loss, and took images for independent.

    Args:
        gain: the network's true accuracy less the head's.
        groups: into how many groups the images of the decision fall; 0: each is independent.
        images, inner: held-out images of the decision, and of the choice of the epoch.
    """
    rng = np.random.default_rng([seed, epochs, groups, images, round(1000 * gain)])
    now = before = 0
    for _ in range(runs):
        held, choosing = _images(images, groups, rng), _images(inner, round(groups * inner / images), rng)
        head = _outputs(held, SIGNAL, 1, rng)[0]
        signal = _signal_of(gain)
        sure = rng.uniform(0.5, 1.5)
        tuned = _outputs(held, signal, epochs, rng, sure)
        by_inner = _outputs(choosing, signal, epochs, rng, sure)
        now += _kept(head, tuned[_best(by_inner, choosing)], held)
        before += _kept_before(head, tuned, held)
    return {"now": now / runs, "before": before / runs}


def _best(outputs: list[Floats], images: Images) -> int:
    """The epoch with the lowest scaled loss, as the stage chooses it."""
    ones = np.ones(len(images.y_N))
    return int(np.argmin([scaled_loss(output, images.y_N, ones, "classification") for output in outputs]))


def _kept(head: Floats, tuned: Floats, images: Images) -> bool:
    held = Held(images.y_N, np.ones(len(images.y_N)), images.unit_N, "classification")
    return whether_to_keep(head, tuned, held, RULE).chosen == "finetune"


def _kept_before(head: Floats, tuned: list[Floats], images: Images) -> bool:
    y_N, ones = images.y_N, np.ones(len(images.y_N))
    best = tuned[int(np.argmin([loss(output, y_N, "classification", ones) for output in tuned]))]
    change_N = (best.argmax(axis=1) == y_N).astype(int) - (head.argmax(axis=1) == y_N)
    won, lost = int((change_N > 0).sum()), int((change_N < 0).sum())
    return won > lost and mid_p(won, lost) <= RULE.significance


def _images(n: int, groups: int, rng: np.random.Generator) -> Images:
    unit_N = np.arange(n) if not groups else np.arange(n) * groups // n
    return Images(rng.integers(0, CLASSES, n), unit_N, _noise(unit_N, rng))


def _noise(unit_N: Ints, rng: np.random.Generator) -> Floats:
    """Standard normal (N, K); the images of a unit share a part of their values."""
    own_NK = rng.normal(size=(len(unit_N), CLASSES))
    if len(np.unique(unit_N)) == len(unit_N):
        return own_NK
    common_UK = rng.normal(size=(int(unit_N.max()) + 1, CLASSES))
    return np.asarray(np.sqrt(1 - WITHIN) * own_NK + np.sqrt(WITHIN) * common_UK[unit_N])


def _outputs(images: Images, signal: float, epochs: int, rng: np.random.Generator, sure: float = 1.0) -> list[Floats]:
    """The probabilities of each epoch of a network; calibrated if `sure` is 1."""
    lasting_NK = _noise(images.unit_N, rng)
    right_NK = signal * (images.y_N[:, None] == np.arange(CLASSES))
    found = []
    for _ in range(epochs):
        own_NK = np.sqrt(SAME) * lasting_NK + np.sqrt(1 - SAME) * _noise(images.unit_N, rng)
        score_NK = right_NK + np.sqrt(1 - OWN) * images.shared_NK + np.sqrt(OWN) * own_NK
        found.append(softmax(sure * signal * score_NK))
    return found


@cache
def _signal_of(gain: float) -> float:
    """The signal with an accuracy of `gain` above that of `SIGNAL`, by 400,000 draws."""
    if gain == 0:
        return SIGNAL
    noise_NK = np.random.default_rng(0).normal(size=(400_000, CLASSES))
    lead_N = noise_NK[:, 0] - noise_NK[:, 1:].max(axis=1)
    wanted = float((lead_N > -SIGNAL).mean()) + gain
    return float(-np.quantile(lead_N, 1 - wanted))


def long_run(runs: int) -> list[Row]:
    """That an equal network is kept no more often than `significance` allows."""
    rows = []
    for epochs in (11, 50):
        for groups in (0, 15):
            rate = simulate(runs, epochs=epochs, groups=groups)["now"]
            among = f"{groups} groups of 20 images" if groups else "300 independent images"
            text = f"an equal fine-tuned network of {epochs} epochs is kept, by {among}"
            rows.append(Row(text, RULE.significance, rate, (0.0, 0.06 + noise(0.06, runs)), runs))
    return rows


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    print("epochs  groups   gain  kept now  kept before")
    for epochs in (11, 50):
        for groups in (0, 15):
            for gain in (0.0, 0.01, 0.02, 0.03, 0.05):
                kept = simulate(options.runs, gain=gain, epochs=epochs, groups=groups, images=options.images)
                print(f"{epochs:6} {groups:7} {gain:6.0%} {kept['now']:9.1%} {kept['before']:12.1%}", flush=True)


if __name__ == "__main__":
    main()
