"""evaluate: the only stage that judges by the test split, and it chooses nothing by it."""

from __future__ import annotations

import shutil
from typing import Any

import pandas as pd

from ..common.candidates import read_candidates
from ..common.core.files import read_json, whole_folder
from ..common.core.paths import Paths
from ..common.core.record import DatasetRecord, Record
from ..common.data.feature_set import read_feature_set
from ..common.data.manifest import write_table
from ..common.data.task import Task
from . import classification, multilabel, regression
from .leak_free import without_leaks
from .page import report_page
from .params import EvaluateParams
from .predictions import Outcome, Report
from .saliency import Looks, look, looks_text
from .saliency_plot import draw_looks

REPORTS: dict[Task, Report] = {
    "classification": classification,
    "multilabel": multilabel,
    "regression": regression,
}

TABLES = {
    "confusion.csv": ["actual", "predicted"],
    "average_precision.csv": ["label", "average_precision"],
    "predicted.csv": ["actual", "predicted", "error"],
    "reliability.csv": ["bin", "images", "confidence", "accuracy"],
    "reliability_before.csv": ["bin", "images", "confidence", "accuracy"],
    "risk_coverage.csv": ["coverage", "error", "threshold"],
}
"""From which dvc.yaml's plots are drawn. Those of other tasks are there, without a row: of a file that is not there,
`dvc plots show` complains."""


def run(params: EvaluateParams, paths: Paths) -> Record:
    """Scores every candidate on the test images; the report is about the one chosen on validation."""
    pack = read_feature_set(paths.features)
    candidates, chosen = read_candidates(paths)
    test = pack.rows("test")
    report, target = REPORTS[pack.task], pack.targets(test)
    before = {name: one.output(pack, test, paths, pack.precision) for name, one in candidates.items()}
    output = {name: one.calibration.apply(before[name]) for name, one in candidates.items()}
    scores = {name: report.scores(each, target, params) for name, each in output.items()}
    index = pack.index.iloc[test][["image_id", "path", "label"]].reset_index(drop=True)
    calibration = candidates[chosen].calibration
    outcome = Outcome(index, pack.classes, target, before[chosen], output[chosen], calibration, params.bins)
    predictions = report.predictions(outcome)
    metrics: dict[str, Any] = {
        "task": pack.task,
        **scores[chosen],
        **report.further(outcome, predictions, params),
        "candidate": chosen,
        "images": len(test),
        "candidates": scores,
        "decision": _decision(paths),
        **without_leaks(paths.audit, outcome, report, params),
    }
    looks = look(outcome, candidates[chosen], pack, paths, params.looks) if params.looks else None
    _write(report, outcome, predictions, metrics, looks, params, paths, pack.channels)
    profile = {"images": len(test), "split": "test"}
    return Record(
        metrics=metrics,
        facts={"candidate": chosen},
        files=sorted(paths.report.iterdir()),
        dataset=DatasetRecord("test", profile),
    )


def _decision(paths: Paths) -> str:
    """What the stage `finetune` decided, and why."""
    decision = read_json(paths.finetune / "decision.json")
    chosen = "The fine-tuned network was chosen" if decision["chosen"] == "finetune" else "The frozen head was chosen"
    further = f" {decision['more_images'].capitalize()}." if decision["more_images"] else ""
    return f"{chosen}: {decision['reason']}.{further}"


def _write(
    report: Report,
    outcome: Outcome,
    predictions: pd.DataFrame,
    metrics: dict[str, Any],
    looks: Looks | None,
    params: EvaluateParams,
    paths: Paths,
    channels: int,
) -> None:
    with whole_folder(paths.report) as folder:
        write_table(predictions, folder / "predictions.parquet")
        report.draw(outcome, predictions, metrics, params, paths.raw, channels, folder)
        shutil.copytree(paths.audit, folder / "audit")
        if looks is not None:
            draw_looks(looks, folder)
        further = looks_text(looks) if looks is not None else ""
        (folder / "index.html").write_text(report_page(metrics, params.confidence, further), encoding="utf-8")
    with whole_folder(paths.plots("evaluate")) as folder:
        for name, columns in TABLES.items():
            pd.DataFrame(columns=columns).to_csv(folder / name, index=False)
        report.tabulate(outcome, predictions, params, folder)
