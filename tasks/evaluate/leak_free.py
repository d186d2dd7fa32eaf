"""The test metrics without the leaked test images that the stage `audit` found. N images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .params import EvaluateParams
from .predictions import Predictions, Report


def without_leaks(folder: Path, predicted: Predictions, report: Report, params: EvaluateParams) -> dict[str, Any]:
    """`without_leaks`: the metrics of the test images that are in no earlier split; empty if that holds for all.

    Args:
        folder: data/audit.
    """
    kept = not_leaked(folder, predicted.index["image_id"])
    if kept.all():
        return {}
    output, decided = predicted.output[kept], predicted.decided[kept]
    of_kept = output, decided, predicted.target[kept], predicted.units[kept]
    left = report.scores(*of_kept, params.confidence) if kept.any() else {}
    return {"without_leaks": {**left, "images": int(kept.sum()), "leaked": int((~kept).sum())}}


def not_leaked(folder: Path, image_ids: pd.Series) -> npt.NDArray[np.bool_]:
    """Which test images, (N,), are in no earlier split.

    Args:
        folder: data/audit.
    """
    leaked = pd.read_parquet(folder / "leaked.parquet", columns=["image_id", "split"])
    return ~image_ids.isin(leaked.loc[leaked["split"] == "test", "image_id"]).to_numpy()
