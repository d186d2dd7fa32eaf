"""Champion and challenger on the same test images."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.words import listed
from graft.tasks.common.data.feature_set import FeatureSet, read_feature_set
from graft.tasks.common.data.matrix import Matrix
from graft.tasks.common.data.units import units_of
from graft.tasks.common.feature_cache.segments import Ids, ids_of
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.maps.maps import open_maps
from graft.tasks.head.selection import deciding_metric
from graft.tasks.register.reference_set import Reference, package_features
from graft.tasks.register.serving import ImageClassifier

from ..runtime.params import Params
from . import decoders
from .champion import Champion
from .contest import BY_CLASS, Contest

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

TIMED = 15
"""Images on which latency is measured, one at a time, alternating between the two models."""


def why_incomparable(champion: Champion, pack: FeatureSet) -> str:
    """Why a champion cannot be scored on these images; empty if it can."""
    facts = read_json(champion.package / "package.json")
    if facts["task"] != pack.task:
        return f"the champion is for {facts['task']}, the images are labelled for {pack.task}"
    theirs = load_head(champion.package).classes if pack.task in BY_CLASS else []
    if pack.task in BY_CLASS and set(theirs).isdisjoint(pack.classes):
        return f"the champion knows none of the current classes ({listed(pack.classes)}), only {listed(theirs)}"
    if champion.reference is None:
        return "the champion does not record which images it was trained on: it is from an older version of Graft"
    if _seen(pack, champion).all():
        if _tells_of_refit(facts):
            return "the champion was trained on every image of the test"
        return (
            "the champion does not record whether it learned from its validation images, and no test image came later"
        )
    return ""


def _seen(pack: FeatureSet, champion: Champion) -> npt.NDArray[np.bool_]:
    """Which of the test images a model may have learned from: itself, a lossless copy, or an image of its group.

    The images of a group count if they are in the test today: after `preprocess.test_fraction` rose, images of a
    training group that came since are as well known as the others. Splits that the data bring may separate a group; a
    training image today tells nothing then.
    """
    index, test = pack.index, pack.rows("test")
    known = np.isin(ids_of(list(index["image_id"])), _learned_from(champion))
    copies = index["pixels"].isin(index["pixels"][known]).to_numpy()[test]
    unit_T = units_of(pack, test)[0]
    return np.isin(unit_T, unit_T[copies])


def _learned_from(champion: Champion) -> Ids:
    """Keys of the images that the champion's weights may have been fitted to. A head from before packages told whether
    it was refitted counts as fitted to all images of its time: which of them were validation images is not recorded."""
    reference = cast(Reference, champion.reference)
    if _tells_of_refit(read_json(champion.package / "package.json")):
        return reference.trained_ids
    return np.union1d(reference.seen_ids, reference.held_out_ids)


def _tells_of_refit(facts: dict[str, Any]) -> bool:
    """Or need not: networks were not refitted then."""
    return "refitted" in facts or facts["candidate"] != "head"


def _test_ids(pack: FeatureSet) -> Ids:
    return ids_of(list(pack.index["image_id"].iloc[pack.rows("test")]))


def contest(paths: Paths, champion: Champion, params: Params, looks: int) -> Contest:
    """Scores both models on the current test images, without those that the champion was trained on.

    Args:
        looks: how many models have been judged on these test images before.
    """
    pack, package = read_feature_set(paths.features), champion.package
    reference = cast(Reference, champion.reference)
    test = pack.rows("test")
    seen = _seen(pack, champion)
    own, own_weighed = _challenger(paths, pack)
    left_out, seen = int(seen.sum()), seen | np.isnan(own).any(axis=1)
    rows = test[~seen]
    ids = _test_ids(pack)[~seen]
    theirs, theirs_weighed = _OTHERS.get(pack.task, _champion)(package, pack, rows, paths)
    return Contest(
        task=pack.task,
        metric=gate_metric(paths, params),
        classes=pack.classes if pack.task in BY_CLASS else [],
        champion_classes=load_head(package).classes if pack.task in BY_CLASS else [],
        target=pack.targets(rows),
        challenger=own[~seen],
        champion=theirs,
        unit_N=units_of(pack, rows)[0],
        earlier_N=np.isin(ids, reference.judged_ids),
        left_out=left_out,
        latency=_latency(paths.package, package, [paths.raw / name for name in pack.index["path"].iloc[rows[:TIMED]]]),
        looks=looks,
        challenger_weighed=own_weighed[~seen],
        champion_weighed=theirs_weighed,
    )


def gate_metric(paths: Paths, params: Params) -> str:
    """The metric of `gate.metric`; `auto` is the one that the head says it was made for."""
    if params.gate.metric != "auto":
        return params.gate.metric
    made_for = read_json(paths.head / "head.json").get("metric")
    return str(made_for or deciding_metric(params.head, params.head.task))


def _challenger(paths: Paths, pack: FeatureSet) -> tuple[Floats, Floats]:
    """The predictions of the stage evaluate, in the order of the feature set's test rows; and as the decision weighs
    them."""
    if pack.task == "reconstruction":
        columns_NM = decoders.challenger(paths, pack)
        return columns_NM, columns_NM
    seen = pd.read_parquet(paths.report / "predictions.parquet")
    if pack.task == "anomaly":
        return seen[["score"]].to_numpy(np.float64), seen[["anomalous"]].to_numpy(np.float64)
    columns = [f"p_{name}" for name in pack.classes] or ["predicted"]
    output = seen[columns].to_numpy(np.float64)
    return output, Calibration.load(paths.package).weighed(output)


def _champion(package: Path, pack: FeatureSet, rows: Rows, paths: Paths) -> tuple[Floats, Floats]:
    """The same by its own head on its own features, which are recomputed only if the feature set has other ones."""
    facts = read_json(package / "package.json")
    head, calibration = load_head(package), Calibration.load(package)
    same = _features_of(facts, pack)
    features: Matrix
    if same is not None:
        features = same.matrix(rows)
    else:
        files = [paths.raw / name for name in pack.index["path"].iloc[rows]]
        image_ids = list(pack.index["image_id"].iloc[rows])
        features = package_features(package, files, image_ids, "gate: the champion")
    output = calibration.apply(head.output(features))
    if pack.task == "regression":
        return output, output
    both = output, calibration.weighed(output)
    plain, weighed = (_in_columns(each, head.classes, pack.classes) for each in both)
    return plain, weighed


def _detector(package: Path, pack: FeatureSet, rows: Rows, paths: Paths) -> tuple[Floats, Floats]:
    """The same of a champion that detects anomalies: scores, and ones where they are above its threshold. Its maps are
    recomputed only if the feature set has other ones."""
    head, score_N1 = load_head(package), np.empty((len(rows), 1))
    if (pack.maps_fingerprint or {}).get("digest") == read_json(package / "package.json")["fingerprint"]:
        for places, maps_BD in open_maps(pack, paths).blocks(rows):
            score_N1[places] = head.output(maps_BD)
    else:
        files = [paths.raw / name for name in pack.index["path"].iloc[rows]]
        score_N1[:, 0] = [one["score"] for one in ImageClassifier(package).predict(files)]
    threshold = Calibration.load(package).threshold
    return score_N1, (score_N1 > (np.inf if threshold is None else threshold)).astype(np.float64)


def _decoder(package: Path, pack: FeatureSet, rows: Rows, paths: Paths) -> tuple[Floats, Floats]:
    """Of a champion that decodes images, see `decoders.py`; without a decision."""
    columns_NM = decoders.champion(package, pack, rows, paths)
    return columns_NM, columns_NM


_OTHERS = {"anomaly": _detector, "reconstruction": _decoder}
"""Task -> what reads the outputs of its champion."""


def _features_of(facts: dict[str, Any], pack: FeatureSet) -> FeatureSet | None:
    """The feature set, or the columns of one of its backbones, with the features that a package computes; or None."""
    if facts["candidate"] != "head":
        return None
    known = [pack, *(pack.only(eye) for eye in pack.eyes)]
    return next((one for one in known if one.fingerprint["digest"] == facts["fingerprint"]), None)


def _in_columns(output_NK: Floats, own: list[str], wanted: list[str]) -> Floats:
    """The probabilities of the current classes; 0 for a class that the champion does not know."""
    found = np.zeros((len(output_NK), len(wanted)))
    for k, name in enumerate(wanted):
        if name in own:
            found[:, k] = output_NK[:, own.index(name)]
    return found


def _latency(challenger: Path, champion: Path, files: list[Path]) -> tuple[float, float]:
    """Median milliseconds from file to answer."""
    models = [ImageClassifier(challenger), ImageClassifier(champion)]
    took: list[list[float]] = [[], []]
    for place, file in enumerate([files[0], *files]):
        for model, times in zip(models, took, strict=True):
            began = time.perf_counter()
            model.predict([file])
            if place:  # the first warms up
                times.append(1000 * (time.perf_counter() - began))
    return median(took[0]), median(took[1])
