"""What lossless copies do to cross-validation and to suspected labels.

Pictures of two classes are points around two centres, near enough for mistakes and in so many dimensions that a model
with little penalty memorises each. Copies are the same points again. Some labels are wrong, and so are those of the
copies.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.audit.findings import doubted_twice, whole_units
from graft.tasks.audit.label_issues import suspected
from graft.tasks.audit.params import AuditParams
from graft.tasks.audit.probe import Probe
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.data.folds import assign

from .row import Row

CLASSES, DIMENSION, APART, WRONG = ("a", "b"), 200, 2.5, 0.05
"""Classes, features, the distance of the centres in standard deviations, and the share of wrong labels."""

PICTURES, FOLDS, L2 = 300, 5, 0.01

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """N points (N, D), their classes (N,) and labels (N,)."""

    points_ND: Floats
    class_N: Ints
    label_N: Ints


def simulate(runs: int, pictures: int, seed: int) -> dict[str, float]:
    """Means over the runs: `test`, the accuracy of the cross-validated models on other pictures; their accuracy on
    those that they did not learn from, `alone`, with `copies`, and with copies that are `torn` because they count as
    pictures of their own; and the share of wrong labels that is suspected, `found_` with the same words."""
    rng = np.random.default_rng(seed)
    rates = [_run(_drawn(rng, pictures), _drawn(rng, 4 * pictures)) for _ in range(runs)]
    return {key: float(np.mean([rate[key] for rate in rates])) for key in rates[0]}


def long_run(runs: int) -> list[Row]:
    """The rows of the published table; a twentieth of the runs, because each judges hundreds of pictures."""
    runs = max(1, runs // 20)
    rates = simulate(runs, PICTURES, 1)
    return [
        Row(
            "accuracy of the test, cross-validated where every image has a lossless copy",
            rates["test"],
            rates["copies"],
            (rates["test"] - 0.02, rates["test"] + 0.02),
            runs,
        ),
        Row(
            "share of wrong labels suspected without copies, with a copy of every image",
            rates["found_alone"],
            rates["found_copies"],
            (rates["found_alone"] - 0.05, 1.0),
            runs,
        ),
    ]


def _drawn(rng: np.random.Generator, pictures: int) -> Pictures:
    class_N = np.arange(pictures) % 2
    points_ND = rng.normal(size=(pictures, DIMENSION))
    points_ND[:, 0] += APART * class_N
    wrong_N = rng.random(pictures) < WRONG
    return Pictures(points_ND, class_N, np.where(wrong_N, 1 - class_N, class_N))


def _run(known: Pictures, others: Pictures) -> dict[str, float]:
    once, twice = np.arange(len(known.class_N)), np.repeat(np.arange(len(known.class_N)), 2)
    rates = {"test": 0.0}
    for name, row, pixels in (("torn", twice, np.arange(len(twice))), ("copies", twice, twice), ("alone", once, once)):
        part = Pictures(known.points_ND[row], known.class_N[row], known.label_N[row])
        pack, rows = _pack(part, pixels, others), np.arange(len(row))
        probe = Probe.of(pack, L2, Path(tempfile.gettempdir()))
        rates[name], rates["test"] = _cross_validated(probe, part, others)
        p_NK = doubted_twice(probe, rows, whole_units(pack, np.arange(len(pack.index))), AuditParams(folds=FOLDS))
        rates[f"found_{name}"] = float(suspected(pack, rows, p_NK)[part.label_N != part.class_N].mean())
    return rates


def _cross_validated(probe: Probe, known: Pictures, others: Pictures) -> tuple[float, float]:
    """The accuracy, by the true classes, on held-out pictures, and of the same models on other pictures."""
    rows, asked = np.arange(len(known.class_N)), len(known.class_N) + np.arange(len(others.class_N))
    fold_N = assign(probe.pack, rows, FOLDS, 0)
    right_N, tested = np.zeros(len(rows), np.bool_), []
    for fold in range(FOLDS):
        held = rows[fold_N == fold]
        guess_M = probe(rows[fold_N != fold], np.concatenate([held, asked])).argmax(axis=1)
        right_N[held] = guess_M[: len(held)] == known.class_N[held]
        tested.append(float((guess_M[len(held) :] == others.class_N).mean()))
    return float(right_N.mean()), float(np.mean(tested))


def _pack(known: Pictures, pixels: Ints, others: Pictures) -> FeatureSet:
    """The known pictures, for training, and the others, for the test."""
    n, all_n = len(known.class_N), len(known.class_N) + len(others.class_N)
    index = pd.DataFrame(
        {
            "image_id": [f"{number:032x}" for number in range(all_n)],
            "path": [f"{number}.png" for number in range(all_n)],
            "label": np.array(CLASSES)[np.concatenate([known.label_N, others.class_N])],
            "task": "classification",
            "split": np.where(np.arange(all_n) < n, "train", "test"),
            "group": pd.array([None] * all_n, "string"),
            "weight": 1.0,
            "pixels": [f"{number:032x}" for number in [*pixels, *range(n, all_n)]],
        }
    )
    points_ND = np.vstack([known.points_ND, others.points_ND]).astype(np.float32)
    return FeatureSet(points_ND, np.zeros((0, DIMENSION), np.float32), index, {})
