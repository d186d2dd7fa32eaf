"""All that the audit finds, question by question. N images, K classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.files import read_json
from ..common.core.paths import Paths
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.task import MAIN, Task
from ..common.scoring.main_metric import main_metric
from ..common.solvers.folds import assign
from .confusable import confusable, mixed_up
from .curve import Curve, learning_curve
from .embedding import embed
from .label_issues import by_chance, judged, suspected, suspects
from .near_duplicates import Copies, find_copies
from .outliers import far_off, outliers
from .params import AuditParams
from .probe import USUAL_L2, Probe
from .subsets import lacks_a_class
from .thumbnails import alike, thumbnails
from .whitening import unit, whitened

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SOBER = (0.01, 1.0)
"""Between these is the penalty of models that judge labels: one that learns wrong labels by heart doubts none, one that
learns next to nothing doubts all. Few images may make the head choose either: of ants and bees, whose head has next to
no penalty, 0.2 % of the true labels were suspected with the lower end, and 2.3 % without."""

MAPPED = 1000
"""Images on the map at most."""


@dataclass(frozen=True)
class Findings:
    """Attributes:
    task, images, by_split: of the data.
    l2: the strength of the audit's own models.
    out_of_fold: their main figure on training and validation images that they have not seen; None without any.
    unjudged: training and validation images that could not be held out.
    by_chance: how many of so many right labels (or marks) would be suspected, see `suspects.by_chance`.
    suspects, outliers, confusable: see the modules of these names.
    doubted, judged: how many labels, of several classes an image marks, are suspected, and of how many could be judged.
    copies: pairs of images that are the same picture; `leaks` and `conflicts` are its tables.
    leaked: how many images of val and test are in a split before; `conflicting`: of train and val, under two labels.
    map: `x`, `y`, `path`, `label`, `split`, `suspect`, `outlier` of at most `MAPPED` images.
    curve: the learning curve.
    """

    task: Task
    images: int
    by_split: dict[str, int]
    classes: int
    l2: float
    out_of_fold: float | None
    unjudged: int
    by_chance: float
    suspects: pd.DataFrame
    doubted: int
    judged: int
    copies: Copies
    leaks: pd.DataFrame
    leaked: dict[str, int]
    conflicts: pd.DataFrame
    conflicting: int
    outliers: pd.DataFrame
    confusable: pd.DataFrame
    map: pd.DataFrame
    curve: Curve

    @property
    def gain(self) -> str:
        """What twice the images would bring a model of the audit's kind, in a sentence."""
        doubling = self.curve.doubling
        if doubling["reason"]:
            return f"What twice the images would bring cannot be said: {doubling['reason']}."
        main = MAIN[self.task]
        scale, digits, unit_of = (100, 1, " points") if main.percent else (1, 3, "")
        gain, low, high = (f"{scale * doubling[key]:.{digits}f}" for key in ("gain", "low", "high"))
        return (
            f"Twice the training images would bring a linear model on these features about +{gain}{unit_of} of "
            f"{main.title} ({low} to {high})."
        )


def look(pack: FeatureSet, params: AuditParams, paths: Paths) -> Findings:
    """Asks every question."""
    probe = Probe.of(pack, strength(pack, paths), paths.tmp)
    learned = pack.rows("train", "val")
    output = doubted_twice(replace(probe, l2=float(np.clip(probe.l2, *SOBER))), learned, params)
    wrong = suspects(pack, learned, output)
    small = thumbnails(pack, paths)
    copies = find_copies(
        pack,
        whitened(small),
        whitened(pack.stored_ND),
        params.near_pixels,
        params.near_features,
        partial(alike, small),
    )
    far = outliers(far_off(pack, params.seed), params.outlier_score)
    pairs = pd.DataFrame() if pack.task == "regression" else mixed_up(pack, learned, output)
    doubted = suspected(pack, learned, output)
    known = judged(output)
    return Findings(
        task=pack.task,
        images=len(pack.index),
        by_split={split: int(count) for split, count in pack.index["split"].value_counts().items()},
        classes=len(pack.classes),
        l2=probe.l2,
        out_of_fold=_figure(pack, learned[known], output[known]),
        unjudged=int((~known).sum()),
        by_chance=by_chance(pack, learned, output, params.seed),
        suspects=wrong,
        doubted=int(doubted.sum()),
        judged=int(known.sum()) * doubted.shape[1],
        copies=copies,
        leaks=copies.leaks(pack),
        leaked={split: int(copies.leaked_N[pack.rows(split)].sum()) for split in ("val", "test")},
        conflicts=copies.conflicts(pack),
        conflicting=int(copies.conflicting_N.sum()),
        outliers=far,
        confusable=pairs if pairs.empty else confusable(pairs, params.confusable_share),
        map=the_map(pack, wrong, far, params.seed),
        curve=learning_curve(pack, probe, params.curve_seeds, params.seed),
    )


def _figure(pack: FeatureSet, rows: Rows, output_NK: Floats) -> float | None:
    figure = main_metric(output_NK, pack.targets(rows), pack.task) if len(rows) else math.nan
    return figure if math.isfinite(figure) else None


def strength(pack: FeatureSet, paths: Paths) -> float:
    """The head's, if its estimator is the one that the audit trains: ridge regression's penalty is on another loss."""
    facts = read_json(paths.head / "head.json")
    own = "ridge" if pack.task == "regression" else "logistic"
    return float(facts["l2"]) if facts.get("estimator") == own else USUAL_L2


def doubted_twice(probe: Probe, rows: Rows, params: AuditParams) -> Floats:
    """What models that have not seen them say of `rows`, (N, K); nan for those that cannot be held out.

    What is suspected after a first round is not learned from in the second: on hand signs with 5 % of the labels
    flipped that raised the accuracy on true labels from 91.9 to 93.7 %, and more of the flipped were found. Of several
    classes an image there is one round: an image with a doubted mark has many right ones to learn from.
    """
    fold = assign(probe.pack, rows, params.folds, params.seed)
    rounds = 1 if probe.pack.task == "multilabel" else 2
    with progress("audit: judging labels", rounds * params.folds, "parts") as bar:
        first = _out_of_fold(probe, rows, fold, np.zeros(len(rows), np.bool_), bar.add)
        if rounds == 1:
            return first
        doubted = suspected(probe.pack, rows, first)[:, 0]
        return _out_of_fold(probe, rows, fold, doubted, bar.add) if doubted.any() else first


def _out_of_fold(probe: Probe, rows: Rows, fold_N: Rows, doubted_N: Bools, each: Callable[[], None]) -> Floats:
    output_NK = np.full((len(rows), max(1, len(probe.pack.classes))), np.nan)
    for fold in np.unique(fold_N[fold_N >= 0]):
        held, others = fold_N == fold, fold_N != fold
        trusted = others & ~doubted_N
        lacking = lacks_a_class(probe.pack, rows[others], rows[trusted])
        output_NK[held] = probe(rows[others if lacking else trusted], rows[held])
        each()
    return output_NK


def the_map(pack: FeatureSet, wrong: pd.DataFrame, far: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A sample of the images with their places, in the pack's order; what is marked comes in first."""
    path = pack.index["path"]
    table = pack.index[["path", "label", "split"]].assign(
        suspect=path.isin(wrong["path"]), outlier=path.isin(far["path"])
    )
    chance = np.random.default_rng([seed, 3]).permutation(len(table))
    marked = (table["suspect"] | table["outlier"]).to_numpy()
    first = np.lexsort((chance, ~marked))  # of the marked ones at most half, or the map would be of them
    chosen = np.sort(np.concatenate([first[: min(marked.sum(), MAPPED // 2)], first[marked.sum() :]])[:MAPPED])
    features = pack.features(chosen)
    places = embed(unit(features - features.mean(axis=0)))
    shown = table.iloc[chosen].astype({"label": str}).reset_index(drop=True)
    return shown.assign(x=places[:, 0], y=places[:, 1])[["x", "y", "path", "label", "split", "suspect", "outlier"]]
