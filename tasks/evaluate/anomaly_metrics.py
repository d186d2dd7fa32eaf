"""What a threshold on anomaly scores finds and misses on the test images, and how well the scores rank. N images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.words import listed
from ..common.data.task import GOOD
from ..common.heads.calibration import Calibration
from ..common.scoring.anomaly import Rate, ranking_scores

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

UNKNOWN = "unknown: no test image has a defect"
"""What is said about detection then."""


@dataclass(frozen=True)
class Inspected:
    """The test images and what the detector says about them.

    Attributes:
        index: `image_id`, `path`, `label` of each image.
        score: float64 (N,); larger is more anomalous.
        p_value: float64 (N,), the share of good images that would score at least as high.
        threshold: an image with a higher score is anomalous.
        units: the unit of each image, int64 (N,), see `data/units.py`.
    """

    index: pd.DataFrame
    score: Floats
    p_value: Floats
    threshold: float
    units: Ints

    @property
    def defect(self) -> Bools:
        return (self.index["label"] != GOOD).to_numpy(np.bool_)

    @property
    def anomalous(self) -> Bools:
        return self.score > self.threshold

    @property
    def kinds(self) -> list[str]:
        """The kinds of defect that occur."""
        return sorted(set(self.index["label"]) - {GOOD})

    def of(self, rows: Bools) -> Inspected:
        """The same on some of the images."""
        index = self.index[rows].reset_index(drop=True)
        return Inspected(index, self.score[rows], self.p_value[rows], self.threshold, self.units[rows])

    def rate(self, rows: Bools, confidence: float) -> Rate:
        """How many of some images are anomalous."""
        return Rate.of(self.anomalous[rows], self.units[rows], confidence)


def image_metrics(found: Inspected, confidence: float) -> dict[str, Any]:
    """The metrics of `METRICS`, the false-alarm rate and the detection rate, all with intervals; None if unknown."""
    defect_N = found.defect
    false, right = found.rate(~defect_N, confidence), found.rate(defect_N, confidence)
    return {
        **ranking_scores(found.score, defect_N, found.units, confidence),
        **false.named("false_alarm_rate"),
        **right.named("detection_rate"),
        "good_images": false.images,
        "false_alarms": false.above,
        "defect_images": right.images,
        "detected": right.above,
    }


def kind_metrics(found: Inspected, confidence: float) -> dict[str, dict[str, Any]]:
    """Kind of defect -> its images, how many are detected, and its ranking against all good images."""
    defect_N, kind_N = found.defect, found.index["label"].to_numpy()
    by_kind = {}
    for kind in found.kinds:
        own_N = kind_N == kind
        rate, part = found.rate(own_N, confidence), found.of(own_N | ~defect_N)
        ranked = ranking_scores(part.score, part.defect, part.units, confidence)
        by_kind[kind] = {
            "images": rate.images,
            "detected": rate.above,
            **rate.named("detection_rate"),
            **{key: value for key, value in ranked.items() if key.startswith("auroc")},
        }
    return by_kind


def promise(found: Inspected, told: Calibration, confidence: float) -> dict[str, Any]:
    """The promised share of false alarms, and whether that of the good test images may be it (None without any)."""
    false = found.rate(~found.defect, confidence)
    promised = float(told.max_false_alarm or 0.0)
    return {
        "max_false_alarm": promised,
        "guarantee": told.guarantee,
        "confidence": told.confidence,
        "kept": false.at_most(promised),
    }


def detection(found: Inspected) -> str:
    """Whether the test says anything about detection, in words."""
    kinds = found.kinds
    if not kinds:
        return UNKNOWN
    few = int(found.defect.sum())
    return f"measured on {few:,} {'image' if few == 1 else 'images'} with {listed(kinds)}"
