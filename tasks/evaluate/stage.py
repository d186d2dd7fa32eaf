"""evaluate: the only stage that reads the test split, and it chooses nothing by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common import metrics as figures
from ..common.calibration import Calibration
from ..common.candidates import read_candidates
from ..common.files import whole_folder
from ..common.manifest import write_table
from ..common.pack import Pack, read_pack
from ..common.paths import Paths
from ..common.record import DatasetRecord, Record
from .page import report_page
from .params import EvaluateParams
from .pictures import confusion_picture, mistakes_picture, reliability_picture
from .selective import abstention, before_calibration, risk_coverage, risk_coverage_picture


def run(params: EvaluateParams, paths: Paths) -> Record:
    """Scores every candidate on the test images; the report is about the one chosen on validation."""
    pack = read_pack(paths.features)
    candidates, chosen = read_candidates(paths)
    test = pack.rows("test")
    y_N = pack.labels(test)
    head_NK = {name: c.predict_proba(pack, test, paths, pack.precision) for name, c in candidates.items()}
    p_NK = {name: candidate.calibration.apply(head_NK[name]) for name, candidate in candidates.items()}
    calibration = candidates[chosen].calibration
    scores = {name: _score(p, y_N, params) for name, p in p_NK.items()}
    matrix_KK = figures.confusion(p_NK[chosen].argmax(axis=1), y_N, len(pack.classes))
    bins = figures.reliability(p_NK[chosen], y_N, params.bins)
    before = figures.reliability(head_NK[chosen], y_N, params.bins)
    predictions = _predictions(pack, test, p_NK[chosen], calibration)
    metrics: dict[str, Any] = {
        **scores[chosen],
        "calibration_error": figures.expected_calibration_error(bins),
        **before_calibration(head_NK[chosen], y_N, calibration.temperature, before),
        **abstention(predictions, calibration, params.confidence, params.bootstrap, params.seed),
        "candidate": chosen,
        "images": len(test),
        "classes": len(pack.classes),
        "candidates": scores,
        "per_class": figures.per_class(matrix_KK, pack.classes),
    }
    _write(params, metrics, matrix_KK, bins, before, predictions, pack, paths)
    report = [
        paths.report / name
        for name in (
            "index.html",
            "confusion.png",
            "reliability.png",
            "risk_coverage.png",
            "mistakes.png",
            "predictions.parquet",
        )
    ]
    profile = {"images": len(test), "split": "test"}
    return Record(metrics=metrics, facts={"candidate": chosen}, files=report, dataset=DatasetRecord("test", profile))


def _score(p_NK: npt.NDArray[np.float64], y_N: npt.NDArray[np.int64], params: EvaluateParams) -> dict[str, float]:
    correct = p_NK.argmax(axis=1) == y_N
    low, high = figures.bootstrap_interval(correct, params.confidence, params.bootstrap, params.seed)
    return {
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": figures.log_loss(p_NK, y_N),
    }


def _predictions(
    pack: Pack, rows: npt.NDArray[np.int64], p_NK: npt.NDArray[np.float64], calibration: Calibration
) -> pd.DataFrame:
    names = np.array(pack.classes, dtype=object)
    table = pack.index.iloc[rows][["image_id", "path", "label"]].reset_index(drop=True)
    table = table.assign(predicted=names[p_NK.argmax(axis=1)], score=p_NK.max(axis=1))
    if calibration.threshold is not None:
        table = table.assign(abstain=~calibration.answers(p_NK))
    return table.assign(**{f"p_{name}": p_NK[:, k] for k, name in enumerate(pack.classes)})


def _write(
    params: EvaluateParams,
    metrics: dict[str, Any],
    matrix_KK: npt.NDArray[np.int64],
    bins: list[dict[str, Any]],
    before: list[dict[str, Any]],
    predictions: pd.DataFrame,
    pack: Pack,
    paths: Paths,
) -> None:
    wrong = predictions[predictions["predicted"] != predictions["label"]]
    worst = wrong.sort_values(["score", "path"], ascending=[False, True]).head(params.mistakes)
    curve = risk_coverage(predictions)
    with whole_folder(paths.report) as folder:
        write_table(predictions, folder / "predictions.parquet")
        confusion_picture(matrix_KK, pack.classes, folder / "confusion.png")
        reliability_picture(bins, metrics["calibration_error"], folder / "reliability.png", before)
        risk_coverage_picture(curve, metrics.get("abstention", {}), folder / "risk_coverage.png")
        mistakes_picture(worst, paths.raw, folder / "mistakes.png", pack.channels)
        (folder / "index.html").write_text(report_page(metrics, params.confidence), encoding="utf-8")
    with whole_folder(paths.plots("evaluate")) as folder:
        confused = predictions.rename(columns={"label": "actual"})[["actual", "predicted"]]
        confused.to_csv(folder / "confusion.csv", index=False)
        pd.DataFrame(bins).to_csv(folder / "reliability.csv", index=False)
        pd.DataFrame(before).to_csv(folder / "reliability_before.csv", index=False)
        curve.to_csv(folder / "risk_coverage.csv", index=False)
