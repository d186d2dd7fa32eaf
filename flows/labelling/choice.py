"""`graft label next`: which images of the pool to ask about."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import whole_file
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.data.feature_set import FeatureSet, read_feature_set
from graft.tasks.common.data.matrix import Matrix
from graft.tasks.common.data.task import BETWEEN, MAIN
from graft.tasks.common.feature_cache.thumbnails import thumbnails_of
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.images.reading import Reading
from graft.tasks.features.maps import shown
from graft.tasks.features.others import features_of
from graft.tasks.labelling.probe import disagreement, principal
from graft.tasks.labelling.simulation import Simulation, in_words
from graft.tasks.labelling.strategies import Pool, Strategy, choose

from ..runtime.params import Params, load_params
from .current import Labels, read_labels_now
from .guard import simulated

MODELLED = ("classification", "multilabel", "regression")
"""The tasks in which what the model is unsure of can be told."""

MOST = 5_000
"""Images from which the models of a regression learn that may disagree."""

COLUMNS = ["path", "image_id", "label", "why", "guess", "probability"]


@dataclass(frozen=True)
class Asked:
    """The images to ask about.

    Attributes:
        table: `COLUMNS`; `label` is empty, to be filled in; `guess` is the model's, empty without one.
        strategy: what chose those that are not random.
        waiting: number of images of the pool without an answer.
        simulation: how `auto` did on the labels that are there; None before the first run, or if it was not asked for.
    """

    table: pd.DataFrame
    strategy: str
    waiting: int
    simulation: Simulation | None = None


@dataclass(frozen=True)
class Known:
    """What the project knows about its own images.

    Attributes:
        features_LD: of the training and validation images, if what a model is unsure of can be told.
        label_L: their class codes, 0 for other kinds of label.
        target_L: of regression, the number of each.
        classes: the K classes.
        digest: of the fingerprint of the features.
        model: whether there is a head for these features.
    """

    features_LD: Matrix
    label_L: npt.NDArray[np.int64]
    target_L: npt.NDArray[np.float64] | None = None
    classes: list[str] = field(default_factory=list)
    digest: str = ""
    model: bool = False


def next_images(root: Path, wanted: int, strategy: Strategy = "auto", seed: int | None = None) -> Asked:
    """Chooses images of the pool that nobody has answered about.

    Where `auto` was worse than random on the labels that are there, it is random.

    Args:
        seed: of what is drawn; by default the number of answers, so that each batch is another one.

    Raises:
        DataError: the pool has none.
    """
    paths, params, found = Paths(root), load_params(Paths(root).params), read_labels_now(root)
    waiting = found.waiting.reset_index(drop=True)
    if not len(waiting):
        raise DataError(
            "the pool has no image to ask about",
            got=f"{len(found.pool):,} images, all of them answered",
            todo="add images without a label: graft label add FOLDER",
        )
    pool = _pool(waiting, found, params, paths, len(found.standing) if seed is None else seed)
    evidence = simulated(root) if strategy == "auto" else None
    chosen = choose(pool.at, wanted, "random" if evidence is not None and not evidence.better else strategy)
    rows = waiting.iloc[chosen.rows]
    guess = pool.guesses(chosen.rows)
    table = pd.DataFrame({
        "path": [f"data/pool/{path}" for path in rows["path"]],
        "image_id": list(rows["image_id"]),
        "label": "",
        "why": chosen.why,
        "guess": [name for name, _ in guess],
        "probability": [probability for _, probability in guess],
    })  # fmt: skip
    return Asked(table[COLUMNS], chosen.strategy, len(waiting), evidence)


@dataclass(frozen=True)
class _Prepared:
    at: Pool
    classes: list[str]

    def guesses(self, rows: npt.NDArray[np.int64]) -> list[tuple[str, float | None]]:
        """The most probable class of each and its probability; of several classes all, without a probability; or the
        number."""
        if self.at.p_PK is None:
            return [("", None)] * len(rows)
        p_NK = self.at.p_PK[rows]
        if self.at.task == "regression":
            return [(f"{value:.4g}", None) for value in p_NK[:, 0]]
        if self.at.task == "multilabel":
            return [(BETWEEN.join(np.array(self.classes)[p_K >= 0.5]), None) for p_K in p_NK]
        return [(self.classes[k], round(float(p), 4)) for k, p in zip(p_NK.argmax(axis=1), p_NK.max(axis=1))]


def _pool(waiting: pd.DataFrame, found: Labels, params: Params, paths: Paths, seed: int) -> _Prepared:
    reading = reading_of(params, paths)
    features = shown(params.features, found.task)
    own = features_of(waiting, paths.pool, features, reading, paths)
    known = known_images(paths)
    if known.digest != own.digest:
        if known.digest:
            say("label: params.yaml has other features than the last run; images are chosen without its model")
        known = Known(np.empty((0, own.features_ND.shape[1]), np.float32), np.empty(0, np.int64))
    asked = found.pool[~found.pool["image_id"].isin(set(waiting["image_id"]))]
    small_PV, known_small_LV = _thumbnails(waiting, asked, reading, paths, bool(known.digest))
    p_PK = load_head(paths.head).output(own.features_ND) if known.model and found.task in MODELLED else None
    group = waiting["group"].where(waiting["group"] != "", waiting["image_id"])
    units_P = pd.factorize(group)[0].astype(np.int64)
    at = Pool(
        np.asarray(own.features_ND, np.float32),
        units_P,
        p_PK,
        known.features_LD,
        known.label_L,
        len(known.classes),
        seed,
        small_PV,
        known_small_LV,
        found.task,
        _unsure(known, own.features_ND, seed),
    )
    return _Prepared(at, known.classes)


def _unsure(known: Known, features_PD: npt.NDArray[Any], seed: int) -> npt.NDArray[np.float64] | None:
    """How far models of a regression disagree about each image of the pool."""
    if known.target_L is None:
        return None
    target_L = known.target_L[:MOST]
    x_NA = principal(np.concatenate([known.features_LD[:MOST], features_PD]))
    return disagreement(x_NA[: len(target_L)], target_L, x_NA[len(target_L) :], seed)


def _thumbnails(
    waiting: pd.DataFrame, asked: pd.DataFrame, reading: Reading, paths: Paths, known: bool
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Of the images to choose from, and of all others: those of the data set, and those that were answered."""

    def of(table: pd.DataFrame, folder: Path) -> npt.NDArray[np.float16]:
        return thumbnails_of(folder, list(table["path"]), list(table["image_id"]), reading, paths, "label: looking")

    data = [of(read_feature_set(paths.features).index, paths.raw)] if known else []
    return of(waiting, paths.pool), np.concatenate([*data, of(asked, paths.pool)])


def reading_of(params: Params, paths: Paths) -> Reading:
    """As the last run read the images; before the first one, as params.yaml says."""
    if (paths.manifest / "manifest.parquet").is_file():
        return Reading.load(paths.manifest)
    return Reading(channels=params.preprocess.channels, limits=params.preprocess.limits)


def known_images(paths: Paths) -> Known:
    """What the last run learned from; nothing before the first one."""
    if not (paths.features / "fingerprint.json").is_file():
        return Known(np.empty((0, 0), np.float32), np.empty(0, np.int64))
    pack = read_feature_set(paths.features)
    learned = pack.rows("train", "val") if pack.task in MODELLED else np.empty(0, np.int64)
    label_L = pack.labels(learned) if pack.task == "classification" else np.zeros(len(learned), np.int64)
    target_L = pack.targets(learned) if pack.task == "regression" else None
    has_head = _has_head(pack, paths)
    return Known(pack.matrix(learned), label_L, target_L, pack.classes, str(pack.fingerprint["digest"]), has_head)


def _has_head(pack: FeatureSet, paths: Paths) -> bool:
    return (paths.head / "head.json").is_file() and load_head(paths.head).dimension == pack.stored_ND.shape[1]


def summary(asked: Asked) -> dict[str, Any]:
    """What was chosen, in numbers."""
    by_reason = asked.table["why"].value_counts()
    return {
        "images": len(asked.table),
        "of_the_pool": asked.waiting,
        "chosen_by": asked.strategy,
        "at_random": int(by_reason.get("random", 0)),
        **_of_simulation(asked),
    }


def _of_simulation(asked: Asked) -> dict[str, Any]:
    found = asked.simulation
    if found is None or found.reason:
        return {}
    curve = [
        {"labels": size, "auto": round(auto, 4), "random": round(random, 4)}
        for size, auto, random in zip(found.sizes, found.auto, found.random)
    ]
    return {"simulation": curve, "forecast": in_words(found, len(asked.table))}


def draw_curve(asked: Asked, file: Path) -> None:
    """Draws the simulation.

    Raises:
        DataError: there is none.
    """
    found = asked.simulation
    if found is None or found.reason:
        raise DataError(
            "there is no curve to draw",
            got=found.reason if found is not None else "no run of the pipeline yet, or a strategy other than auto",
            todo="leave out --curve, or use --strategy auto after a run",
        )
    from graft.tasks.labelling.plots import simulation_plot

    with whole_file(file.resolve()) as part:
        simulation_plot(found, part)


def remarks(asked: Asked) -> list[str]:
    """What a person should know about the choice."""
    found = asked.simulation
    if found is None:
        return []
    if found.reason:
        return [f"auto was not compared with random on the labels that are there: {found.reason}"]
    metric = MAIN[found.task]
    mean = [metric.text(float(np.mean(values))) for values in (found.auto, found.random)]
    sizes = f"{found.sizes[0]:,} to {found.sizes[-1]:,} labels"
    compared = f"on the labels that are there, with {sizes}, auto has {mean[0]} {metric.title} and random {mean[1]}"
    if not found.better:
        compared += "; so auto is random here"
    return [compared, in_words(found, len(asked.table))]
