"""evaluate: the only stage that uses the test split. It chooses nothing by it."""

from __future__ import annotations

import shutil
from typing import Any

import pandas as pd

from ..common.candidates import Candidate, read_candidates
from ..common.core.files import read_json, whole_folder, write_json
from ..common.core.paths import Paths
from ..common.core.record import DatasetRecord, Record
from ..common.data.feature_set import FeatureSet, read_feature_set
from ..common.data.manifest import write_table
from ..common.data.task import LOSS, MAIN, Task
from ..common.data.units import units_of
from ..common.reporting.html import inlined
from ..common.reporting.origin import origin
from . import classification, multilabel, regression
from .baseline import baseline, unit_of
from .leak_free import without_leaks
from .page import report_page
from .params import EvaluateParams
from .predictions import Predictions, Report
from .saliency import explain
from .saliency_plot import draw_saliency

REPORTS: dict[Task, Report] = {
    "classification": classification,
    "multilabel": multilabel,
    "regression": regression,
}

HEADLINE = "metrics/headline.json"
"""What `dvc metrics show` shows: all metrics of all stages would be 2,500 columns wide."""

TABLES = {
    "confusion.csv": ["actual", "predicted"],
    "average_precision.csv": ["label", "average_precision"],
    "predicted.csv": ["actual", "predicted", "error"],
    "reliability.csv": ["bin", "images", "confidence", "accuracy"],
    "reliability_before.csv": ["bin", "images", "confidence", "accuracy"],
    "risk_coverage.csv": ["coverage", "error", "threshold"],
}
"""The tables that the plots of dvc.yaml are drawn from. Those of other tasks have no rows: `dvc plots show` complains
about a missing file."""


def run(params: EvaluateParams, paths: Paths) -> Record:
    """Scores every candidate on the test images; the report is about the one that was chosen on validation."""
    pack = read_feature_set(paths.features)
    candidates, chosen = read_candidates(paths)
    test = pack.rows("test")
    report, target = REPORTS[pack.task], pack.targets(test)
    before = {name: one.output(pack, test, paths, pack.precision) for name, one in candidates.items()}
    output = {name: one.calibration.apply(before[name]) for name, one in candidates.items()}
    units, unit_names = units_of(pack, test)
    scores = {
        name: report.scores(each, candidates[name].calibration.weighed(each), target, units, params.confidence)
        for name, each in output.items()
    }
    predicted = Predictions(
        index=pack.index.iloc[test][["image_id", "path", "label"]].reset_index(drop=True),
        classes=pack.classes,
        target=target,
        before=before[chosen],
        output=output[chosen],
        calibration=candidates[chosen].calibration,
        bins=params.bins,
        raw=paths.raw,
        reading=pack.reading,
        units=units,
    )
    table = report.prediction_table(predicted)
    metrics: dict[str, Any] = {
        "task": pack.task,
        **scores[chosen],
        **report.further(predicted, table, params),
        "candidate": chosen,
        "images": len(test),
        "units": len(unit_names),
        "unit": unit_of(unit_names),
        "baseline": baseline(pack, test),
        "candidates": {name: _brief(each, pack.task) for name, each in scores.items()},
        "decision": _decision(paths),
        **without_leaks(paths.audit, predicted, report, params),
    }
    _write(predicted, table, metrics, candidates[chosen], pack, params, paths)
    write_json(paths.root / HEADLINE, _headline(metrics))
    return Record(
        metrics=metrics,
        facts={"candidate": chosen},
        files=sorted(paths.report.iterdir()),
        dataset=DatasetRecord("test", {"images": len(test), "split": "test"}),
    )


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The few metrics by which runs are compared at a glance."""
    task: Task = metrics["task"]
    names = (*MAIN[task].keys, LOSS[task], "mae", "calibration_error", "images")
    return {name: metrics[name] for name in names if name in metrics}


def _brief(scores: dict[str, Any], task: Task) -> dict[str, Any]:
    """Without the ends of intervals other than that of the main metric."""
    return {
        key: value for key, value in scores.items() if key in MAIN[task].keys or not key.endswith(("_low", "_high"))
    }


def _decision(paths: Paths) -> str:
    """The decision of the stage `finetune`, with its reason."""
    decision = read_json(paths.finetune / "decision.json")
    chosen = "The fine-tuned network was chosen" if decision["chosen"] == "finetune" else "The frozen head was chosen"
    further = f" {decision['more_images'].capitalize()}." if decision["more_images"] else ""
    return f"{chosen}: {decision['reason']}.{further}"


def _write(
    predicted: Predictions,
    table: pd.DataFrame,
    metrics: dict[str, Any],
    candidate: Candidate,
    pack: FeatureSet,
    params: EvaluateParams,
    paths: Paths,
) -> None:
    """report/ and plots/evaluate/."""
    report = REPORTS[pack.task]
    classes = report.class_table(predicted, params.confidence)
    saliency = explain(predicted, candidate, pack, paths, params.saliency) if params.saliency else None
    with whole_folder(paths.report) as folder:
        write_table(table, folder / "predictions.parquet")
        classes.to_csv(folder / "classes.csv", index=False)
        report.draw(predicted, table, classes, metrics, params.misclassified, folder)
        if saliency is not None:
            draw_saliency(saliency, folder)
        page = report_page(metrics, classes, params.confidence, inlined(folder), origin(pack, paths), saliency)
        (folder / "index.html").write_text(page, encoding="utf-8")
        shutil.copytree(paths.audit, folder / "audit")
    with whole_folder(paths.plots("evaluate")) as folder:
        for name, columns in TABLES.items():
            pd.DataFrame(columns=columns).to_csv(folder / name, index=False)
        report.tabulate(predicted, table, folder)
