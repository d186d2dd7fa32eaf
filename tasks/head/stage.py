"""head: trains a head on the frozen features; held-out images choose among the candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..common.core.files import whole_folder
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, read_feature_set
from ..common.data.manifest import Task, write_table
from ..common.heads.base import Head
from ..common.heads.calibration import FILE, Calibration
from ..common.scoring.temperature import calibrate, check_promise, check_task, summary
from .class_weights import weight_by_class
from .combine import choose_combined, retrain, tried_by, way
from .params import HeadParams
from .search import Tried
from .selection import Choice, deciding_metric


def run(params: HeadParams, paths: Paths) -> Record:
    """Tries the candidates, chooses one by held-out images, and trains it again on training and validation images."""
    pack = read_feature_set(paths.features)
    check_task(pack.task, params.max_error)
    choice = choose_combined(pack, params, paths.tmp)
    for part in choice.parts or (choice,):
        _warn(part, params)
    calibration = _calibrate(choice, pack, params)
    final = choice.head
    if params.refit:
        final = retrain(choice, pack, pack.rows("train", "val"), params, paths.tmp)
    _write(choice, final, calibration, _later(pack, params), pack, paths)
    return _record(choice, calibration, pack, paths)


def _calibrate(choice: Choice, pack: FeatureSet, params: HeadParams) -> Calibration:
    """Calibration from the chosen candidate's outputs for images that were held out from it."""
    found = calibrate(
        choice.found.output,
        pack.targets(choice.held),
        pack.weights(choice.held),
        pack.task,
        scale=params.calibrate,
        max_error=params.max_error,
        confidence=params.max_error_confidence,
    )
    check_promise(found)
    return found


def _warn(choice: Choice, params: HeadParams) -> None:
    tried, best = choice.found.tried, choice.found.best
    if not tried[best].converged:
        say("head: the chosen candidate has not converged; try a larger `head.max_iterations` or `head.tolerance`")
    if "l2" not in tried[best].settings or len(tried) == 1:
        return
    if len(tried) == best + 1:
        say(f"head: the weakest strength tried, {params.l2_min:g}, is the best; try a smaller `head.l2_min`")
    if best == 0:
        say(
            f"head: the strongest strength tried, {params.l2_max:g}, is the best; "
            "try a larger `head.l2_max`, or the features carry little information about the labels"
        )


def _later(pack: FeatureSet, params: HeadParams) -> dict[str, Any]:
    """What later stages need to know of these parameters: the metric that decides between models, and what the weight
    of an image of each class is multiplied by (null where classes have no weights)."""
    train = pack.rows("train")
    by_class_K = weight_by_class(pack.weights(train), pack.targets(train), pack.classes, params.class_weight)
    return {
        "metric": deciding_metric(params, pack.task),
        "class_weights": None if by_class_K is None else by_class_K.tolist(),
    }


def _write(
    choice: Choice,
    final: Head,
    calibration: Calibration,
    later: dict[str, Any],
    pack: FeatureSet,
    paths: Paths,
) -> None:
    """head.*: the head; selected.*: the same candidate trained without validation images, from which fine-tuning
    starts; validation.parquet: the candidate's outputs for images that were held out from it; calibration.json: how
    outputs are calibrated."""
    settings = {"estimator": choice.kind, **choice.found.chosen.settings, **later}
    with whole_folder(paths.head) as folder:
        final.save(folder, "head", **settings)
        choice.head.save(folder, "selected", **settings)
        calibration.save(folder)
        write_table(_held_out(choice, pack), folder / "validation.parquet")
    with whole_folder(paths.plots("head")) as folder:
        rows = [_row(number, tried, pack.task) for number, tried in enumerate(tried_by(choice))]
        pd.DataFrame(rows).to_csv(folder / "path.csv", index=False)


def _held_out(choice: Choice, pack: FeatureSet) -> pd.DataFrame:
    """image_id, label, the fold in which the image was held out, and p_0 ... p_K-1, or `predicted` for a number."""
    names = [f"p_{k}" for k in range(len(pack.classes))] or ["predicted"]
    table = pack.index.iloc[choice.held][["image_id", "label"]].reset_index(drop=True)
    columns = dict(zip(names, choice.found.output.T, strict=True))
    return table.assign(fold=choice.fold_M, **columns).iloc[np.argsort(choice.held)].reset_index(drop=True)


def _row(number: int, tried: Tried, task: Task) -> dict[str, float]:
    """A row of path.csv. `along` is where it is drawn: at log10 of the strength or of k, or at its number."""
    scale = tried.settings.get("l2") or tried.settings.get("k")
    return {
        "along": float(np.log10(scale)) if scale else float(number),
        **tried.settings,
        "train_loss": tried.train_loss,
        "val_loss": tried.score.loss,
        **_metrics(tried, task),
        "iterations": tried.iterations,
        "converged": int(tried.converged),
    }


def _metrics(tried: Tried, task: Task) -> dict[str, float]:
    if task == "regression":
        return {"val_rmse": tried.score.loss**0.5}
    return {"val_accuracy": tried.score.accuracy}


def _record(choice: Choice, calibration: Calibration, pack: FeatureSet, paths: Paths) -> Record:
    every, chosen = tried_by(choice), choice.found.chosen
    metrics: dict[str, Any] = {
        **_metrics(chosen, pack.task),
        **({} if pack.task == "regression" else {"val_log_loss": chosen.score.loss}),
        "train_loss": chosen.train_loss,
        **chosen.settings,
        "tried": len(every),
        "iterations": sum(tried.iterations for tried in every),
        "converged": all(tried.converged for tried in every),
        "folds": len(set(choice.fold_M)) if choice.fold_M.any() else 0,
        "train_images": len(pack.rows("train")),
        "val_images": len(pack.rows("val")),
        "calibration": summary(calibration),
        **({"combined": {name: score.loss for name, score in choice.combined.items()}} if choice.combined else {}),
    }
    rows = [_row(number, tried, pack.task) for number, tried in enumerate(every)]
    curves = {
        f"path_{name}": [(step, row[name]) for step, row in enumerate(rows)]
        for name in rows[0]
        if name not in ("along", "iterations", "converged")
    }
    return Record(
        metrics=metrics,
        facts={"kind": choice.kind, **({"combine": way(choice)} if choice.combined else {})},
        curves={name: curve for name, curve in curves.items() if curve},
        files=[paths.head / "head.json", paths.head / FILE, paths.plots("head") / "path.csv"],
    )
