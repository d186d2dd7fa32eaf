"""Decoded test images against their targets, beside the same decoder on random weights, and for masks a threshold of
grey values. N images; maps are read and decoded block by block.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.errors import DataError
from ..common.core.files import read_json, whole_folder
from ..common.core.paths import Paths
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.manifest import write_table
from ..common.data.task import GOOD
from ..common.data.units import units_of
from ..common.heads.decoder import DecoderHead
from ..common.heads.load import load_head
from ..common.maps.maps import open_maps
from ..common.maps.targets import Targets
from ..common.maps.untrained import is_untrained, untrained
from ..common.reporting.html import inlined
from ..common.reporting.origin import origin
from ..common.scoring.decoded import keys_of, scores
from ..common.scoring.images import OVERLAP, dice
from ..common.scoring.intervals import interval
from ..common.scoring.judging import Judge, threshold_table
from ..common.scoring.pixel_threshold import PixelThreshold
from ..common.scoring.ranking import mean_auroc
from .baseline import unit_of
from .decoded_plot import DecodedExample, decoded_plot
from .leak_free import not_leaked
from .outputs import decision, plot_tables, record
from .params import EvaluateParams
from .reconstruction_page import reconstruction_page

SHOWN = 6
"""Images with the best and with the worst metric that the report shows, each."""


@dataclass(frozen=True)
class Tested:
    """The test images whose target is known.

    Attributes:
        rows: in the feature set.
        index: `image_id`, `path`, `label` of each.
        table: the metrics of each, see `Judge.table`.
        unit_N: the unit of each image.
    """

    rows: Rows
    index: pd.DataFrame
    table: pd.DataFrame
    unit_N: npt.NDArray[np.int64]

    def scores(self, confidence: float, kept_N: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Of all images, or of some."""
        if kept_N is None:
            return scores(self.table, self.unit_N, confidence)
        return scores(self.table[kept_N], self.unit_N[kept_N], confidence)


def run(params: EvaluateParams, paths: Paths, pack: FeatureSet) -> Record:
    """Decodes the test images, and reports on them.

    Raises:
        DataError: no test image has a target, or one was removed or damaged after it was checked.
    """
    maps, head = open_maps(pack, paths), _decoder(paths, "head")
    targets = Targets.of(pack, paths, maps.graph.spec.transform, head.target)  # type: ignore[arg-type]
    judge, rows = Judge(head, maps, targets), targets.usable(pack.rows("test"))
    if not len(rows):
        raise DataError(
            f"no test image has a {head.target}",
            allowed="at least one",
            todo="give some of them to test in the table's column split, or leave that column out",
        )
    unit_N, unit_names = units_of(pack, rows)
    index = pack.index.iloc[rows][["image_id", "path", "label"]].reset_index(drop=True)
    tested = Tested(rows, index, judge.table(rows, "evaluate: comparing"), unit_N)
    own = tested.scores(params.confidence)
    others = _others(judge, tested, params, paths)
    metrics: dict[str, Any] = {
        "task": pack.task,
        "target": head.target,
        "metric": keys_of(tested.table)[0],
        **own,
        **others,
        "candidates": {"untrained" if is_untrained(maps) else "pretrained": own, **others["candidates"]},
        **_as_anomaly(tested, params),
        "candidate": "head",
        "images": len(rows),
        "without_target": len(pack.rows("test")) - len(rows),
        "units": len(unit_names),
        "unit": unit_of(unit_names),
        "decision": decision(paths),
        **_without_leaks(tested, params, paths),
    }
    _write(judge, tested, metrics, params, paths)
    return record(metrics, paths)


def _decoder(paths: Paths, name: str) -> DecoderHead:
    head = load_head(paths.head, name)
    assert isinstance(head, DecoderHead)
    return head


def _others(judge: Judge, tested: Tested, params: EvaluateParams, paths: Paths) -> dict[str, Any]:
    """What the decoder is compared with: `candidates` (the same on random weights) and `pixel_threshold`."""
    found: dict[str, Any] = {"candidates": {}}
    if (paths.head / "untrained.json").is_file():
        other = Judge(_decoder(paths, "untrained"), untrained(judge.maps), judge.targets)
        table = other.table(tested.rows, "evaluate: comparing, random weights")
        found["candidates"]["untrained"] = scores(table, tested.unit_N, params.confidence)
    if (paths.head / "pixel_threshold.json").is_file():
        grey = PixelThreshold(**read_json(paths.head / "pixel_threshold.json"))
        table = threshold_table(judge.targets, tested.rows, grey)
        found["pixel_threshold"] = {**asdict(grey), **scores(table, tested.unit_N, params.confidence)}
    return found


def error_of(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """An anomaly score of each image, (N,): the larger, the worse it was reconstructed; of masks the marked pixels."""
    if "psnr" in table:
        return -table["psnr"].to_numpy(np.float64)
    return table["found"].to_numpy(np.float64)


def _as_anomaly(tested: Tested, params: EvaluateParams) -> dict[str, Any]:
    """`auroc` of the error, with its interval, where some test images are labelled `GOOD` and others are not."""
    defect_N = tested.index["label"].ne(GOOD).to_numpy(np.float64)
    if defect_N.all() or not defect_N.any():
        return {}
    score_N1, target_N1 = error_of(tested.table)[:, None], defect_N[:, None]
    low, high = interval(score_N1, target_N1, tested.unit_N, "multilabel", metric="auroc", confidence=params.confidence)
    return {"auroc": mean_auroc(score_N1, target_N1), "auroc_low": low, "auroc_high": high}


def _without_leaks(tested: Tested, params: EvaluateParams, paths: Paths) -> dict[str, Any]:
    """The metrics of the test images that are in no earlier split; empty if that holds for all."""
    kept_N = not_leaked(paths.audit, tested.index["image_id"])
    if kept_N.all():
        return {}
    counted = {"images": int(kept_N.sum()), "leaked": int((~kept_N).sum())}
    return {"without_leaks": {**(tested.scores(params.confidence, kept_N) if kept_N.any() else {}), **counted}}


def quality(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """By which images are called best and worst, (N,): PSNR, or Dice; nan where neither mask nor decoder marks any."""
    if "psnr" in table:
        return table["psnr"].to_numpy(np.float64)
    return dice(table[list(OVERLAP)].to_numpy(np.float64))


def ranked(tested: Tested) -> dict[str, list[int]]:
    """The places of the images with the worst and of those with the best metric."""
    value_N = quality(tested.table)
    order = [
        int(place)
        for place in np.lexsort((tested.index["path"].to_numpy(str), value_N))
        if value_N[place] == value_N[place]
    ]
    half = (len(order) + 1) // 2
    return {"worst": order[: min(SHOWN, half)], "best": order[::-1][: min(SHOWN, len(order) - half)]}


def _write(judge: Judge, tested: Tested, metrics: dict[str, Any], params: EvaluateParams, paths: Paths) -> None:
    """report/ and plots/evaluate/."""
    with whole_folder(paths.report) as folder:
        write_table(pd.concat([tested.index, tested.table], axis=1), folder / "predictions.parquet")
        for name, places in ranked(tested).items():
            if places:
                decoded_plot([_example(judge, tested, place) for place in places], folder / f"{name}.png")
        page = reconstruction_page(metrics, params.confidence, inlined(folder), origin(judge.maps.pack, paths))
        (folder / "index.html").write_text(page, encoding="utf-8")
        shutil.copytree(paths.audit, folder / "audit")
    with plot_tables(paths):
        pass


def _example(judge: Judge, tested: Tested, place: int) -> DecodedExample:
    row = int(tested.rows[place])
    key = "PSNR {:.1f} dB" if "psnr" in tested.table else "Dice {:.2f}"
    return DecodedExample(
        f"{tested.index['path'].iloc[place]}\n{key.format(quality(tested.table)[place])}",
        judge.targets.picture(row),
        np.moveaxis(judge.targets.read(row), 0, 2),
        np.moveaxis(judge.decoded(row), 0, 2),
    )
