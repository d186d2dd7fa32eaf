"""evaluate: the only stage that uses the test split. It chooses nothing by it."""

from __future__ import annotations

import shutil
from typing import Any

import pandas as pd

from ..common.candidates import Candidate, read_candidates
from ..common.core.files import whole_folder
from ..common.core.paths import Paths
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, read_feature_set
from ..common.data.manifest import write_table
from ..common.data.task import MAIN, Task
from ..common.data.units import units_of
from ..common.reporting.html import inlined
from ..common.reporting.origin import origin
from . import anomaly, classification, multilabel, reconstruction, regression
from .baseline import baseline, unit_of
from .leak_free import without_leaks
from .outputs import decision, plot_tables, record
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


def run(params: EvaluateParams, paths: Paths) -> Record:
    """Scores the test images, and reports on them.

    Raises:
        DataError: an image was removed or damaged after it was checked.
    """
    pack = read_feature_set(paths.features)
    own = {"anomaly": anomaly.run, "reconstruction": reconstruction.run}.get(pack.task, _compare)
    return own(params, paths, pack)


def _compare(params: EvaluateParams, paths: Paths, pack: FeatureSet) -> Record:
    """Scores every candidate on the test images; the report is about the one that was chosen on validation."""
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
        "decision": decision(paths),
        **without_leaks(paths.audit, predicted, report, params),
    }
    _write(predicted, table, metrics, candidates[chosen], pack, params, paths)
    return record(metrics, paths)


def _brief(scores: dict[str, Any], task: Task) -> dict[str, Any]:
    """Without the ends of intervals other than that of the main metric."""
    return {
        key: value for key, value in scores.items() if key in MAIN[task].keys or not key.endswith(("_low", "_high"))
    }


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
    with plot_tables(paths) as folder:
        report.tabulate(predicted, table, folder)
