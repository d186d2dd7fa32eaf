"""What the stage writes for every task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.core.files import read_json, whole_folder, write_json
from ..common.core.paths import Paths
from ..common.core.record import DatasetRecord, Record
from ..common.data.task import LOSS, Task, main_in

HEADLINE = "metrics/headline.json"
"""What `dvc metrics show` shows: all metrics of all stages would be 2,500 columns wide."""

FURTHER = ("mae", "calibration_error", "detection_rate", "pixel_auroc", "au_pro", "ssim", "iou", "images")
"""The metrics there besides the main one and the loss."""

TABLES = {
    "confusion.csv": ["actual", "predicted"],
    "average_precision.csv": ["label", "average_precision"],
    "predicted.csv": ["actual", "predicted", "error"],
    "reliability.csv": ["bin", "images", "confidence", "accuracy"],
    "reliability_before.csv": ["bin", "images", "confidence", "accuracy"],
    "risk_coverage.csv": ["coverage", "error", "threshold"],
    "anomaly_scores.csv": ["score", "good", "defect"],
    "detection.csv": ["false_alarm_rate", "detection_rate"],
}
"""The tables that the plots of dvc.yaml are drawn from. Those of other tasks have no rows: `dvc plots show` complains
about a missing file."""


@contextmanager
def plot_tables(paths: Paths) -> Iterator[Path]:
    """The folder plots/evaluate with every table, to be filled."""
    with whole_folder(paths.plots("evaluate")) as folder:
        for name, columns in TABLES.items():
            pd.DataFrame(columns=columns).to_csv(folder / name, index=False)
        yield folder


def decision(paths: Paths) -> str:
    """The decision of the stage `finetune`, with its reason."""
    found = read_json(paths.finetune / "decision.json")
    chosen = "The fine-tuned network was chosen" if found["chosen"] == "finetune" else "The frozen head was chosen"
    further = f" {found['more_images'].capitalize()}." if found["more_images"] else ""
    return f"{chosen}: {found['reason']}.{further}"


def record(metrics: dict[str, Any], paths: Paths) -> Record:
    """The record of the stage; writes the headline."""
    write_json(paths.root / HEADLINE, _headline(metrics))
    return Record(
        metrics=metrics,
        facts={"candidate": metrics["candidate"]},
        files=sorted(paths.report.iterdir()),
        dataset=DatasetRecord("test", {"images": metrics["images"], "split": "test"}),
    )


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The few metrics by which runs are compared at a glance."""
    task: Task = metrics["task"]
    names = (*main_in(metrics).keys, LOSS[task], *FURTHER)
    return {name: metrics[name] for name in names if metrics.get(name) is not None}
