"""What the stage `audit` found of the test images, beside the test. N images, K classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..common.data.task import MAIN
from .params import EvaluateParams
from .predictions import Outcome, Report


def without_leaks(folder: Path, outcome: Outcome, report: Report, params: EvaluateParams) -> dict[str, Any]:
    """The figures of the test images that are in no split before, as `without_leaks`; nothing where all are.

    Args:
        folder: data/audit.
    """
    leaked = pd.read_parquet(folder / "leaked.parquet", columns=["image_id", "split"])
    kept = ~outcome.index["image_id"].isin(leaked.loc[leaked["split"] == "test", "image_id"]).to_numpy()
    if kept.all():
        return {}
    left = report.scores(outcome.output[kept], outcome.target[kept], params) if kept.any() else {}
    return {"without_leaks": {**left, "images": int(kept.sum()), "leaked": int((~kept).sum())}}


def audit_text(metrics: dict[str, Any]) -> str:
    """A paragraph of the report."""
    link = (
        '<a href="audit/index.html">What the features say about the data</a>: wrong labels, leaks, outliers and more.'
    )
    found = metrics.get("without_leaks")
    if found is None:
        return f"<p>{link}</p>"
    leaked = "1 test image is" if found["leaked"] == 1 else f"{found['leaked']} test images are"
    main = MAIN[metrics["task"]]
    without = "They are all that there are."
    if found["images"]:
        value, low, high = (main.text(found[key]) for key in main.keys)
        without = f"Without them the {main.title} is {value} ({low} to {high}, {found['images']} images)."
    return f"<p>{leaked} also among the training or validation images. {without} {link}</p>"
