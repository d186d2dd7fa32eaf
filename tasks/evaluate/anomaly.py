"""Anomaly detection on the test images: how many defects are found, how often a good image is taken for one, and where.

N images; maps are read and scored block by block.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.files import whole_folder
from ..common.core.paths import Paths
from ..common.core.progress import progress
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.manifest import write_table
from ..common.data.units import units_of
from ..common.heads.anomaly import AnomalyHead
from ..common.heads.calibration import Calibration
from ..common.heads.load import load_anomaly_head
from ..common.maps.maps import Maps, open_maps
from ..common.reporting.html import inlined
from ..common.reporting.origin import origin
from .anomaly_metrics import Inspected, detection, image_metrics, kind_metrics, promise
from .anomaly_page import anomaly_page
from .anomaly_plots import detection_plot, detection_table, score_table, scores_plot
from .baseline import unit_of
from .heat_examples import chosen, draw_examples
from .leak_free import not_leaked
from .outputs import decision, plot_tables, record
from .params import EvaluateParams
from .pixel_metrics import Pixels

Singles = npt.NDArray[np.float32]

INDEX = ["image_id", "path", "label", "mask"]


@dataclass(frozen=True)
class Detector:
    """A head with the maps of the feature set's images."""

    head: AnomalyHead
    maps: Maps

    def heat(self, row: int, size: tuple[int, int]) -> Singles:
        """The heat map of an image, (H, W)."""
        return self._heat(self.maps.read(np.array([row])), size)

    def _heat(self, maps_1D: npt.NDArray[np.float16], size: tuple[int, int]) -> Singles:
        found: Singles = self.head.heat(maps_1D, size)[0]
        return found

    def score(self, rows: Rows, pixels: Pixels) -> npt.NDArray[np.float64]:
        """The score of each image, (N,); its pixels are counted, too."""
        score_N = np.empty(len(rows))
        with progress("evaluate: scoring", len(rows)) as bar:
            for places, maps_BD in self.maps.blocks(rows):
                score_N[places] = self.head.output(maps_BD)[:, 0]
                for place, map_D in zip(places.tolist(), maps_BD, strict=True):
                    pixels.add(place, partial(self._heat, map_D[None]))
                bar.add(len(places))
        return score_N


def run(params: EvaluateParams, paths: Paths, pack: FeatureSet) -> Record:
    """Scores the test images and their pixels, and reports on both.

    Raises:
        DataError: an image was removed or damaged after it was checked.
    """
    test = pack.rows("test")
    index = pack.index.iloc[test][INDEX].reset_index(drop=True)
    detector, told = Detector(load_anomaly_head(paths.head), open_maps(pack, paths)), Calibration.load(paths.head)
    pixels = Pixels(index, pack.reading, paths)
    score_N = detector.score(test, pixels)
    units, unit_names = units_of(pack, test)
    found = Inspected(index, score_N, detector.head.p_values(score_N), float(told.threshold or 0.0), units)
    metrics: dict[str, Any] = {
        "task": pack.task,
        **image_metrics(found, params.confidence),
        **pixels.metrics(),
        "detection": detection(found),
        "threshold": found.threshold,
        "promise": promise(found, told, params.confidence),
        "kinds": kind_metrics(found, params.confidence),
        "candidate": "head",
        "head": detector.head.kind,
        "images": len(test),
        "units": len(unit_names),
        "unit": unit_of(unit_names),
        "baseline": _baseline(found),
        "decision": decision(paths),
        **_without_leaks(found, params, paths),
    }
    _write(found, metrics, detector, pack, params, paths)
    return record(metrics, paths)


def _baseline(found: Inspected) -> dict[str, float | None]:
    """The metrics if every image had the same score."""
    share = float(found.defect.mean())
    known = 0 < share < 1
    return {"auroc": 0.5 if known else None, "average_precision": share if known else None}


def _without_leaks(found: Inspected, params: EvaluateParams, paths: Paths) -> dict[str, Any]:
    """`without_leaks`: the metrics of the test images that are in no earlier split; empty if that holds for all."""
    kept_N = not_leaked(paths.audit, found.index["image_id"])
    if kept_N.all():
        return {}
    counted = {"images": int(kept_N.sum()), "leaked": int((~kept_N).sum())}
    return {"without_leaks": {**image_metrics(found.of(kept_N), params.confidence), **counted}}


def prediction_table(found: Inspected) -> pd.DataFrame:
    """The content of report/predictions.parquet: `image_id`, `path`, `label`, `score`, `p_value`, `anomalous`."""
    return found.index[["image_id", "path", "label"]].assign(
        score=found.score, p_value=found.p_value, anomalous=found.anomalous
    )


def _write(
    found: Inspected,
    metrics: dict[str, Any],
    detector: Detector,
    pack: FeatureSet,
    params: EvaluateParams,
    paths: Paths,
) -> None:
    """report/ and plots/evaluate/."""
    test = pack.rows("test")
    parts = chosen(found)

    def heat(place: int, size: tuple[int, int]) -> Singles:
        return detector.heat(int(test[place]), size)

    with whole_folder(paths.report) as folder:
        write_table(prediction_table(found), folder / "predictions.parquet")
        kinds = [{"kind": kind, **values} for kind, values in metrics["kinds"].items()]
        pd.DataFrame(kinds or None, columns=None if kinds else ["kind"]).to_csv(folder / "kinds.csv", index=False)
        scores_plot(found, folder / "scores.png")
        if metrics["auroc"] is not None:
            detection_plot(found, metrics["kinds"], metrics["auroc"], folder / "detection.png")
        shown = {name: places[: params.heat_maps] for name, places in parts.items()} if params.heat_maps else {}
        draw_examples(shown, found, heat, pack.reading, paths, folder)
        counts = {name: len(places) for name, places in parts.items()}
        page = anomaly_page(metrics, params.confidence, inlined(folder), origin(pack, paths), counts)
        (folder / "index.html").write_text(page, encoding="utf-8")
        shutil.copytree(paths.audit, folder / "audit")
    with plot_tables(paths) as folder:
        score_table(found).to_csv(folder / "anomaly_scores.csv", index=False)
        detection_table(found).to_csv(folder / "detection.csv", index=False)
