"""The head on several backbones or sizes: one on all their features, or the mean of one for each.

E eyes (a backbone at one size each), M held-out rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..common.core.progress import say
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.task import Task
from ..common.heads.base import Head
from ..common.heads.mean import MeanHead
from ..common.scoring.temperature import calibrate
from .params import HeadParams
from .scores import Score, is_metric
from .search import Found, Tried
from .selection import Choice, choose, held_weights, select_of, train

SIDE_BY_SIDE, MEAN = "side_by_side", "mean"


def choose_combined(pack: FeatureSet, params: HeadParams, scratch: Path | None = None) -> Choice:
    """`choose`; of several eyes in the way that `head.combine` says. With `auto` both are scored on the same held-out
    rows, by the outputs of heads that were not trained on them; see `served_score`.

    Raises:
        ParamsError, DataError: see `choose`.
    """
    if len(pack.eyes) == 1:
        return choose(pack, params, scratch)
    found: dict[str, Choice] = {}
    if params.combine != MEAN:
        found[SIDE_BY_SIDE] = choose(pack, params, scratch)
    if params.combine != SIDE_BY_SIDE:
        found[MEAN] = _mean(pack, params, scratch)
    scores = {name: served_score(choice, pack, params) for name, choice in found.items()}
    best = next(iter(found))
    if scores[list(found)[-1]].better_than(scores[best]):
        best = MEAN
    if len(found) > 1:
        select = select_of(params, pack.task)
        told = ", ".join(f"{name} {_told(score, select, pack.task):.4f}" for name, score in scores.items())
        say(f"head: {len(pack.eyes)} backbones or sizes, combined as {best} ({select} on held-out images: {told})")
    return replace(found[best], combined=scores)


def served_score(choice: Choice, pack: FeatureSet, params: HeadParams) -> Score:
    """Of the outputs for held-out rows, calibrated if `head.calibrate` asks for it: a mean of probabilities is less
    confident than each of them, which a temperature cures."""
    output, target = choice.found.output, pack.targets(choice.held)
    weight_M = held_weights(pack, choice.held, params)
    calibration = calibrate(output, target, weight_M, pack.task, scale=params.calibrate)
    return Score.of(calibration.apply(output), target, weight_M, pack.task, select_of(params, pack.task))


def _told(score: Score, select: str, task: Task) -> float:
    """The metric that chooses, as people know it."""
    if is_metric(select, task):
        return score.chosen_by
    return float(np.sqrt(score.loss)) if select == "rmse" else score.loss


def way(choice: Choice) -> str:
    """How the eyes are combined."""
    return MEAN if choice.parts else SIDE_BY_SIDE


def retrain(choice: Choice, pack: FeatureSet, rows: Rows, params: HeadParams, scratch: Path | None = None) -> Head:
    """The chosen candidate, or that of each eye, trained on these rows."""
    if not choice.parts:
        return train(choice.kind, choice.found.chosen.settings, pack, rows, params, scratch)
    heads = [
        train(part.kind, part.found.chosen.settings, pack.only(eye), rows, params, scratch)
        for part, eye in zip(choice.parts, pack.eyes, strict=True)
    ]
    return MeanHead(tuple(heads), pack.classes, pack.task)


def tried_by(choice: Choice) -> list[Tried]:
    """All candidates; for a mean those of each eye in turn, with its number as the setting `eye`."""
    if not choice.parts:
        return choice.found.tried
    return [
        replace(tried, settings={"eye": float(number), **tried.settings})
        for number, part in enumerate(choice.parts)
        for tried in part.found.tried
    ]


def _mean(pack: FeatureSet, params: HeadParams, scratch: Path | None) -> Choice:
    """The best candidate of each eye; all are held out in the same folds."""
    parts = tuple(choose(pack.only(eye), params, scratch) for eye in pack.eyes)
    held, chosen = parts[0].held, [part.found.chosen for part in parts]
    output = np.mean([part.found.output for part in parts], axis=0)
    tried = Tried(
        {f"{name}_{number}": value for number, one in enumerate(chosen) for name, value in one.settings.items()},
        Score.of(output, pack.targets(held), held_weights(pack, held, params), pack.task, select_of(params, pack.task)),
        float(np.mean([one.train_loss for one in chosen])),
        sum(one.iterations for one in chosen),
        all(one.converged for one in chosen),
    )
    head = MeanHead(tuple(part.head for part in parts), pack.classes, pack.task)
    return Choice(parts[0].kind, Found([tried], 0, output, None), held, parts[0].fold_M, head, parts)
