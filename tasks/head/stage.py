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
from ..common.data.manifest import write_table
from ..common.data.task import METRICS, Task
from ..common.data.units import units_of
from ..common.heads.base import Head
from ..common.heads.calibration import FILE, Calibration
from ..common.scoring.conformal import least_units
from ..common.scoring.main_metric import metric_of
from ..common.scoring.temperature import calibrate, check_promise, check_task, summary
from . import reconstruction
from .anomaly import run_anomaly
from .combine import choose_combined, retrain, tried_by, way
from .params import HeadParams
from .scores import is_metric
from .search import Tried
from .selection import Choice, class_weights, deciding_metric, select_of


def run(params: HeadParams, paths: Paths) -> Record:
    """Tries the candidates, chooses one by held-out images, and trains it again on training and validation images."""
    pack = read_feature_set(paths.features)
    if pack.task == "reconstruction":
        return reconstruction.run(params, paths, pack)
    check_task(pack.task, params.max_error, params.set_confidence, params.thresholds)
    if pack.task == "anomaly":
        return run_anomaly(pack, params, paths)
    choice = choose_combined(pack, params, paths.tmp)
    for part in choice.parts or (choice,):
        _warn(part, params)
    calibration = _calibrate(choice, pack, params)
    final = choice.head
    if params.refit:
        final = retrain(choice, pack, pack.rows("train", "val"), params, paths.tmp)
    rows = _path(choice, pack.task, select_of(params, pack.task))
    _write(choice, final, calibration, _later(pack, params), rows, pack, paths)
    return _record(choice, calibration, rows, pack, paths)


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
        unit_N=units_of(pack, choice.held)[0],
        class_weight_K=class_weights(pack, params),
        thresholds=params.thresholds,
        interval_confidence=params.interval_confidence if pack.task == "regression" else None,
        set_confidence=params.set_confidence,
    )
    check_promise(found)
    if found.interval_confidence is not None and found.margin is None:
        say(
            f"head: predictions have no intervals of {found.interval_confidence:.0%} confidence: that needs at least "
            f"{least_units(found.interval_confidence)} independent held-out images or groups, there are "
            f"{found.metrics['units']}"
        )
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
    by_class_K = class_weights(pack, params)
    return {
        "metric": deciding_metric(params, pack.task),
        "class_weights": None if by_class_K is None else by_class_K.tolist(),
    }


Table = list[dict[str, float]]
"""The rows of path.csv."""


def _path(choice: Choice, task: Task, select: str) -> Table:
    return [_row(number, tried, task, select) for number, tried in enumerate(tried_by(choice))]


def _write(
    choice: Choice,
    final: Head,
    calibration: Calibration,
    later: dict[str, Any],
    rows: Table,
    pack: FeatureSet,
    paths: Paths,
) -> None:
    """head.*: the head; selected.*: the same candidate trained without validation images, from which fine-tuning
    starts; validation.parquet: the candidate's outputs for images that were held out from it; calibration.json: how
    outputs are calibrated."""
    settings = {"estimator": choice.kind, **choice.found.chosen.settings, **later}
    with whole_folder(paths.head) as folder:
        final.save(folder, "head", refitted=final is not choice.head, **settings)
        choice.head.save(folder, "selected", refitted=False, **settings)
        calibration.save(folder)
        write_table(_held_out(choice, pack), folder / "validation.parquet")
    with whole_folder(paths.plots("head")) as folder:
        pd.DataFrame(rows).to_csv(folder / "path.csv", index=False)


def _held_out(choice: Choice, pack: FeatureSet) -> pd.DataFrame:
    """image_id, label, the fold in which the image was held out, and p_0 ... p_K-1, or `predicted` for a number."""
    names = [f"p_{k}" for k in range(len(pack.classes))] or ["predicted"]
    table = pack.index.iloc[choice.held][["image_id", "label"]].reset_index(drop=True)
    outputs = pd.DataFrame(choice.found.output, columns=names)
    table = pd.concat([table.assign(fold=choice.fold_M), outputs], axis=1)
    return table.iloc[np.argsort(choice.held)].reset_index(drop=True)


def _row(number: int, tried: Tried, task: Task, select: str) -> dict[str, float]:
    """A row of path.csv. `along` is where it is drawn: at log10 of the strength or of k, or at its number."""
    scale = tried.settings.get("l2") or tried.settings.get("k")
    return {
        "along": float(np.log10(scale)) if scale else float(number),
        **tried.settings,
        "train_loss": tried.train_loss,
        "val_loss": tried.score.loss,
        **({f"val_{select}": tried.score.chosen_by} if is_metric(select, task) else {}),
        **_metrics(tried, task),
        "iterations": tried.iterations,
        "converged": int(tried.converged),
    }


def _metrics(tried: Tried, task: Task) -> dict[str, float]:
    if task == "regression":
        return {"val_rmse": tried.score.loss**0.5}
    return {"val_accuracy": tried.score.accuracy}


def _validation(choice: Choice, calibration: Calibration, pack: FeatureSet) -> dict[str, float]:
    """Every metric of the task, of the calibrated held-out outputs and their decisions."""
    output, target = calibration.apply(choice.found.output), pack.targets(choice.held)
    keys = [metric.key for metric in METRICS[pack.task]]
    return {f"val_{key}": metric_of(calibration.judged(output, key), target, key, pack.task) for key in keys}


def _record(choice: Choice, calibration: Calibration, rows: Table, pack: FeatureSet, paths: Paths) -> Record:
    every, chosen = tried_by(choice), choice.found.chosen
    metrics: dict[str, Any] = {
        **_metrics(chosen, pack.task),
        **_validation(choice, calibration, pack),
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
