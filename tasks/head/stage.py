"""head: a linear classifier on the frozen features, its regularisation chosen on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.calibrating import calibrate, check_promise, check_task, summary
from ..common.calibration import FILE, Calibration
from ..common.files import whole_folder
from ..common.heads import LinearHead
from ..common.logistic import fit, path
from ..common.manifest import write_table
from ..common.pack import Pack, read_pack
from ..common.paths import Paths
from ..common.progress import progress, say
from ..common.record import Record
from .params import HeadParams
from .search import Validated, search


def run(params: HeadParams, paths: Paths) -> Record:
    """Walks the path of strengths, chooses one on validation, and trains it again on all that may be learned from."""
    pack = read_pack(paths.features)
    check_task(pack.task, params.max_error)
    visited, best = walk(pack, params, paths.tmp)
    chosen = visited[best]
    _warn(visited, best, params)
    selected = LinearHead(chosen.step.weight_KD, chosen.step.bias_K, pack.classes)
    final = _refit(pack, chosen, params, paths.tmp) if params.refit else selected
    p_NK, calibration = _calibrate(pack, selected, params)
    _write(pack, selected, final, p_NK, calibration, visited, chosen, paths)
    return _record(visited, chosen, calibration, pack, paths)


def walk(pack: Pack, params: HeadParams, scratch: Path | None = None) -> tuple[list[Validated], int]:
    """The strengths that were tried, and the place of the one that validation chose."""
    features, train = pack.to_learn_from("train")
    val = pack.rows("val")
    steps = path(
        features, pack.labels(train), _weights(pack, train, params.class_weight), len(pack.classes),
        np.geomspace(params.l2_max, params.l2_min, params.strengths),
        tolerance=params.tolerance, max_iterations=params.max_iterations, scratch=scratch,
    )  # fmt: skip
    with progress("head: training", params.strengths, "strengths") as bar:
        return search(
            steps, pack.features(val), pack.labels(val), pack.weights(val), params.select, params.patience, bar.add
        )


def _weights(pack: Pack, rows: npt.NDArray[np.int64], class_weight: str) -> npt.NDArray[np.float64]:
    weight = pack.weights(rows)
    if class_weight == "balanced":
        y = pack.labels(rows)
        share = np.bincount(y, weights=weight, minlength=len(pack.classes))
        weight = weight * (weight.sum() / (np.count_nonzero(share) * share))[y]
    return weight


def _refit(pack: Pack, chosen: Validated, params: HeadParams, scratch: Path) -> LinearHead:
    features, rows = pack.to_learn_from("train", "val")
    step = fit(
        features, pack.labels(rows), _weights(pack, rows, params.class_weight), len(pack.classes), chosen.step.l2,
        start=chosen.step, tolerance=params.tolerance, max_iterations=params.max_iterations, scratch=scratch,
    )  # fmt: skip
    return LinearHead(step.weight_KD, step.bias_K, pack.classes)


def _calibrate(pack: Pack, selected: LinearHead, params: HeadParams) -> tuple[npt.NDArray[np.float64], Calibration]:
    """The selected head's probabilities on validation, which it has not seen, and what follows from them."""
    val = pack.rows("val")
    p_NK = selected.predict_proba(pack.features(val))
    found = calibrate(
        p_NK,
        pack.targets(val),
        pack.weights(val),
        pack.task,
        scale=params.calibrate,
        max_error=params.max_error,
        confidence=params.max_error_confidence,
    )
    check_promise(found)
    return p_NK, found


def _warn(visited: list[Validated], best: int, params: HeadParams) -> None:
    if 1 < len(visited) == best + 1:
        say(f"head: the weakest strength tried, {params.l2_min:g}, is the best; try a smaller `head.l2_min`")
    if best == 0 and len(visited) > 1:
        say(f"head: the strongest strength tried, {params.l2_max:g}, is the best; try a larger `head.l2_max`")


def _write(
    pack: Pack,
    selected: LinearHead,
    final: LinearHead,
    p_NK: npt.NDArray[np.float64],
    calibration: Calibration,
    visited: list[Validated],
    chosen: Validated,
    paths: Paths,
) -> None:
    """head.*: the classifier; selected.*: the one trained without validation images, from which fine-tuning starts;
    validation.parquet: the latter's probabilities on validation; calibration.json: what is done to them."""
    val = pack.rows("val")
    with whole_folder(paths.head) as folder:
        final.save(folder, "head", l2=chosen.step.l2)
        selected.save(folder, "selected", l2=chosen.step.l2)
        calibration.save(folder)
        table = pack.index.iloc[val][["image_id", "label"]].reset_index(drop=True)
        write_table(
            table.assign(**{f"p_{k}": p_NK[:, k] for k in range(len(pack.classes))}), folder / "validation.parquet"
        )
    with whole_folder(paths.plots("head")) as folder:
        pd.DataFrame([result.row() for result in visited]).to_csv(folder / "path.csv", index=False)


def _record(visited: list[Validated], chosen: Validated, calibration: Calibration, pack: Pack, paths: Paths) -> Record:
    metrics: dict[str, Any] = {
        "val_accuracy": chosen.val_accuracy,
        "val_log_loss": chosen.val_loss,
        "train_loss": chosen.step.train_loss,
        "l2": chosen.step.l2,
        "strengths_tried": len(visited),
        "iterations": sum(result.step.iterations for result in visited),
        "converged": all(result.step.converged for result in visited),
        "train_images": len(pack.rows("train")),
        "val_images": len(pack.rows("val")),
        "calibration": summary(calibration),
    }
    curves = {
        name: [(step, result.row()[name]) for step, result in enumerate(visited)]
        for name in ("l2", "train_loss", "val_loss", "val_accuracy")
    }
    return Record(
        metrics=metrics,
        curves={f"path_{name}": curve for name, curve in curves.items()},
        files=[paths.head / "head.json", paths.head / FILE, paths.plots("head") / "path.csv"],
    )
