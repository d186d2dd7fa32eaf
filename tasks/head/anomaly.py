"""A head for anomalies: learned from good images alone, chosen by defects in validation where there are any.

N good images of training and validation, each held out from what scores it; d defects of validation, never learned
from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.errors import DataError, ParamsError
from ..common.core.files import whole_folder
from ..common.core.paths import Paths
from ..common.core.progress import progress, say
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.manifest import write_table
from ..common.data.task import GOOD
from ..common.data.units import units_of
from ..common.heads.anomaly import AnomalyHead, image_scores
from ..common.heads.calibration import FILE, Calibration
from ..common.heads.gaussian import GaussianHead
from ..common.heads.patches import PatchesHead
from ..common.heads.subspace import SubspaceHead
from ..common.maps.maps import Maps, open_maps
from ..common.scoring.false_alarms import false_alarm_limit, least_images
from ..common.scoring.main_metric import metric_of
from .good_patches import Pool, Space, coresets, outside, parts_of, plain, read_pool
from .params import HeadParams
from .places import Places, read_places, turned

Double = npt.NDArray[np.float64]

PARTS = 5
"""Into which the good images are divided, unless `head.folds` says."""

BANK = 5000
"""Patches of a bank unless `head.coreset` says. Time for an image grows with it."""

EXPLAINED = 0.97
"""Share of the variance of good patches inside the subspace."""

TOPS = (0.005, 0.0, 0.03)
"""Shares of the patches whose mean is the score of an image; 0: the largest alone. The first is the default."""

LEAST_DEFECTS = 10
"""With fewer defects in validation, they choose nothing."""

Build = Callable[[int | None], AnomalyHead]
"""The head without a part of the images; None: with all."""


@dataclass(frozen=True)
class Candidate:
    """Attributes:
    head: of all good images, without their scores as yet.
    good_N: scores of the good images, each by the head without its part.
    defect_d: scores of the defects.
    auroc: of the defects against the good images; None without defects.
    """

    head: AnomalyHead
    good_N: Double
    defect_d: Double
    auroc: float | None

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": self.head.kind, "top": self.head.top}


@dataclass(frozen=True)
class Held:
    """The images that scores are needed of. `part_N` are the parts of the good ones."""

    good: Rows
    defects: Rows
    part_N: Rows


def run_anomaly(pack: FeatureSet, params: HeadParams, paths: Paths) -> Record:
    """Fits the candidates, chooses one, and sets the threshold.

    Raises:
        ParamsError: `head.kind` is for other tasks.
        DataError: the good images are all of one group.
    """
    check_kind(params)
    maps, held = open_maps(pack, paths), divided(pack, params)
    candidates = [one for build in _builds(maps, held, params) for one in fitted(build, maps, held)]
    best = chosen(candidates, len(held.defects))
    unit_N = units_of(pack, held.good)[0]
    calibration = _threshold(candidates[best], unit_N, params)
    share_N = 1 / np.bincount(unit_N)[unit_N]
    order = np.argsort(candidates[best].good_N, kind="stable")
    head = _with(candidates[best].head, good=candidates[best].good_N[order], share=share_N[order])
    _write(replace(candidates[best], head=head), calibration, candidates, held, pack, paths)
    return _record(candidates, best, head, calibration, held, pack, paths)


def check_kind(params: HeadParams) -> None:
    """Raises:
    ParamsError: the kind is for other tasks.
    """
    if params.kind not in ("auto", "gaussian", "patches", "subspace"):
        raise ParamsError(
            "params.yaml: `head.kind` is not for `head.task: anomaly`",
            got=params.kind,
            allowed="auto, gaussian, patches, subspace",
            todo="change `head.kind`",
        )


def divided(pack: FeatureSet, params: HeadParams) -> Held:
    """Raises:
    DataError: the good images are all of one group.
    """
    rows = pack.rows("train", "val")
    good = (pack.index["label"].to_numpy()[rows] == GOOD) & (pack.weights(rows) > 0)
    validation = pack.index["split"].to_numpy()[rows] == "val"
    folds = PARTS if params.folds in ("auto", 0) else int(params.folds)
    part_N = parts_of(pack, rows[good], folds, params.seed)
    if not len(part_N) or part_N.max() == 0:
        raise DataError(
            "no good image can be held out to set the threshold",
            got=f"{len(part_N)} good images outside the test, all of one group",
            allowed="good images of two groups or more",
            todo="add good images of another group, or take the groups out of the table",
        )
    defect = (pack.index["label"].to_numpy()[rows] != GOOD) & validation
    return Held(rows[good], rows[defect], part_N)


def _builds(maps: Maps, held: Held, params: HeadParams) -> list[Build]:
    """A candidate of each kind that is asked for, the default first. Without defects to choose by, only the default."""
    places = read_places(maps, held.good, held.part_N) if params.kind in ("auto", "gaussian") else None
    gaussian = [] if places is None else [_gaussian(places, maps)]
    if params.kind == "gaussian":
        return gaussian
    first = places is not None and places.is_better()
    if first and len(held.defects) < LEAST_DEFECTS:
        return gaussian
    pool = read_pool(maps, held.good, held.part_N, params.seed)
    if params.kind != "auto":
        return [_patches(pool, maps, params) if params.kind == "patches" else _subspace(pool, maps)]
    patches = [_patches(pool, maps, params)]
    if len(held.defects) < LEAST_DEFECTS:
        return patches
    return [*(gaussian + patches if first else patches + gaussian), _subspace(pool, maps)]


def _gaussian(places: Places, maps: Maps) -> Build:
    def build(without: int | None) -> AnomalyHead:
        mean_PE, covariance_PEE = places.without(without).gaussians()
        turn_PEE, (high, wide, kept) = turned(covariance_PEE), places.shape
        mean = mean_PE.reshape(high, wide, kept).astype(np.float32)
        turn = turn_PEE.reshape(high, wide, kept, kept).astype(np.float32)
        return GaussianHead(mean, turn, **_shape(maps))

    return build


def _shape(maps: Maps) -> dict[str, Any]:
    """What heads of both kinds are given; the scores of good images come later."""
    (level,) = maps.form.levels
    none = np.empty(0)
    sizes = {"channels": level.channels, "height": level.height, "width": level.width, "top": 1}
    return {**sizes, "classes": [], "good": none, "share": none}


def _patches(pool: Pool, maps: Maps, params: HeadParams) -> Build:
    cores = coresets(pool, bank_size(params, len(pool.part_N), maps))

    def build(without: int | None) -> AnomalyHead:
        space = plain(pool.moments(without))
        kept = np.concatenate([core_MC for part, core_MC in enumerate(cores) if part != without])
        return PatchesHead(space(kept).astype(np.float16), space.mean_C, space.turn_CE, **_shape(maps))

    return build


def bank_size(params: HeadParams, images: int, maps: Maps) -> int:
    """`head.coreset` in patches."""
    (level,) = maps.form.levels
    every = images * level.height * level.width
    asked = params.coreset
    return min(every, BANK if asked == "auto" else int(asked) if asked >= 1 else max(1, round(asked * every)))


def _subspace(pool: Pool, maps: Maps) -> Build:
    def build(without: int | None) -> AnomalyHead:
        space: Space = outside(pool.moments(without), EXPLAINED)
        return SubspaceHead(space.turn_CE, space.mean_C, **_shape(maps))

    return build


def fitted(build: Build, maps: Maps, held: Held) -> list[Candidate]:
    """One for each of `TOPS`: the scores of patches are the same for all."""
    head, rows = build(None), np.concatenate([held.good, held.defects])
    places = head.height * head.width
    tops = list(dict.fromkeys(max(1, round(share * places)) for share in TOPS))
    score_TN = np.empty((len(tops), len(rows)))
    part_N = np.concatenate([held.part_N, np.full(len(held.defects), -1)])
    heads = {part: build(part) for part in range(int(held.part_N.max()) + 1)} | {-1: head}
    with progress(f"head: scoring held-out images by {head.kind}", len(rows)) as bar:
        for which, maps_BD in maps.blocks(rows):
            for part in np.unique(part_N[which]).tolist():
                inside = part_N[which] == part
                scores = heads[part].patch_scores(maps_BD[inside])
                score_TN[:, which[inside]] = [image_scores(scores, top) for top in tops]
            bar.add(len(which))
    return [
        _candidate(_with(head, top=top), score_N, len(held.good)) for top, score_N in zip(tops, score_TN, strict=True)
    ]


def _candidate(head: AnomalyHead, score_N: Double, good: int) -> Candidate:
    defect_N = (np.arange(len(score_N)) >= good).astype(np.int64)
    auroc = metric_of(score_N[:, None], defect_N, "auroc", "anomaly") if len(score_N) > good else None
    return Candidate(head, score_N[:good], score_N[good:], auroc)


def chosen(candidates: list[Candidate], defects: int) -> int:
    """The one with the largest AUROC; without enough defects, or of equals, the first."""
    if defects < LEAST_DEFECTS:
        return 0
    return int(np.argmax([cast(float, one.auroc) for one in candidates]))


def _with(head: AnomalyHead, **changed: Any) -> AnomalyHead:
    return cast(AnomalyHead, replace(cast(Any, head), **changed))


def _threshold(found: Candidate, unit_N: Rows, params: HeadParams) -> Calibration:
    limit = false_alarm_limit(found.good_N, unit_N, params.max_false_alarm, params.max_error_confidence)
    bound, expected = least_images(params.max_false_alarm, params.max_error_confidence)
    units = int(unit_N.max()) + 1
    if limit.guarantee != "bound":
        kept = "keeps it on average only" if limit.guarantee == "expected" else "is the largest score; nothing is known"
        say(
            f"head: {params.max_false_alarm:.1%} false alarms cannot be guaranteed with "
            f"{params.max_error_confidence:.0%} confidence: that needs {bound} independent good images (on average: "
            f"{expected}), there are {units}; the threshold {kept}"
        )
    return Calibration(
        threshold=limit.threshold,
        max_false_alarm=params.max_false_alarm,
        guarantee=limit.guarantee,
        confidence=params.max_error_confidence,
        metrics={"good_images": len(unit_N), "units": units},
    )


def _write(
    best: Candidate,
    calibration: Calibration,
    candidates: list[Candidate],
    held: Held,
    pack: FeatureSet,
    paths: Paths,
) -> None:
    """head.*: the head; calibration.json: the threshold; validation.parquet: scores of images that it was not fitted
    on, the fold of a defect being -1; path.csv: the candidates."""
    with whole_folder(paths.head) as folder:
        best.head.save(folder, "head", refitted=True, estimator=best.head.kind, metric="auroc", class_weights=None)
        calibration.save(folder)
        write_table(_held_out(best, held, pack), folder / "validation.parquet")
    with whole_folder(paths.plots("head")) as folder:
        pd.DataFrame(_rows(candidates)).to_csv(folder / "path.csv", index=False)


def _rows(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """The losses, which these heads do not have, stay empty: dvc.yaml draws them for every task."""
    losses = {"train_loss": None, "val_loss": None}
    return [
        {"along": float(number), **losses, **one.settings, **({} if one.auroc is None else {"val_auroc": one.auroc})}
        for number, one in enumerate(candidates)
    ]


def _held_out(best: Candidate, held: Held, pack: FeatureSet) -> pd.DataFrame:
    rows = np.concatenate([held.good, held.defects])
    table = pack.index.iloc[rows][["image_id", "label"]].reset_index(drop=True)
    fold_N = np.concatenate([held.part_N, np.full(len(held.defects), -1)])
    table = table.assign(fold=fold_N, score=np.concatenate([best.good_N, best.defect_d]))
    return table.iloc[np.argsort(rows)].reset_index(drop=True)


def _record(
    candidates: list[Candidate],
    best: int,
    head: AnomalyHead,
    calibration: Calibration,
    held: Held,
    pack: FeatureSet,
    paths: Paths,
) -> Record:
    found = candidates[best]
    threshold = float(calibration.threshold or 0.0)
    metrics: dict[str, Any] = {
        "threshold": threshold,
        "max_false_alarm": calibration.max_false_alarm,
        "guarantee": calibration.guarantee,
        "val_false_alarm_rate": float((found.good_N > threshold).mean()),
        **_of_defects(found, threshold),
        "top": head.top,
        **({"bank": len(head.bank)} if isinstance(head, PatchesHead) else {}),
        "tried": len(candidates),
        "folds": int(held.part_N.max()) + 1,
        "train_images": len(pack.rows("train")),
        "val_images": len(pack.rows("val")),
        "good_images": len(held.good),
        "defects": len(held.defects),
        "units": calibration.metrics["units"],
    }
    return Record(
        metrics=metrics,
        facts={"kind": head.kind},
        files=[paths.head / "head.json", paths.head / FILE, paths.plots("head") / "path.csv"],
    )


def _of_defects(found: Candidate, threshold: float) -> dict[str, float]:
    if found.auroc is None:
        return {}
    return {"val_auroc": found.auroc, "val_detection_rate": float((found.defect_d > threshold).mean())}
