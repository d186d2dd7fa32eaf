"""`graft compare`: a frozen backbone, partial or full fine-tuning, and training from scratch, on growing numbers of the
project's own images.

Every method learns from the same parts of the training images, and all are evaluated on the validation images, which
no training uses: what a training chooses by comes from its own part. The test split is not read. Finished trainings are
kept in .graft/compare, so that an interrupted comparison continues.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.tasks.audit.subsets import growing, lacks_a_class, strata
from graft.tasks.common.core.errors import GraftError, ParamsError
from graft.tasks.common.core.files import json_digest, whole_file, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.core.record import DatasetRecord, Record
from graft.tasks.common.data.eyes import backbones
from graft.tasks.common.data.feature_set import FeatureSet, Rows, read_feature_set
from graft.tasks.common.data.task import metric_named
from graft.tasks.common.data.units import units_of
from graft.tasks.common.heads.base import Head
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.scoring.main_metric import metric_of
from graft.tasks.finetune.lessons import weighed
from graft.tasks.finetune.params import FREE, FinetuneParams
from graft.tasks.head.combine import choose_combined, retrain
from graft.tasks.head.params import HeadParams
from graft.tasks.head.selection import class_weights
from graft.tasks.studies.comparing import TITLES, Cell, Point, advice, as_good_as_the_best, crossings, points
from graft.tasks.studies.comparing_picture import comparing_picture
from graft.tasks.studies.held import Held

from ..runtime.params import Params, load_params
from ..tracking.tracker import Tracker
from .compare_text import page
from .study import metric_of_studies, provenance

METHODS = tuple(TITLES)

INNER = 0.2
"""The share of a part's images by which its training chooses the head's strength and the epoch at which to stop."""

RULES = 2
"""To be raised whenever a change in `graft.tasks.finetune` changes the training with the same parameters."""


@dataclass(frozen=True)
class Part:
    """A share of the training images: those to learn from, and those to choose by."""

    share: float
    seed: int
    learned: Rows
    inner: Rows

    @property
    def rows(self) -> Rows:
        return np.sort(np.concatenate([self.learned, self.inner]))


def compare_methods(
    root: Path,
    methods: Sequence[str],
    shares: Sequence[float],
    seeds: int,
    budget_minutes: float | None,
    target: Path | None = None,
) -> dict[str, Any]:
    """Runs the trainings that are missing, and writes table, plot and page.

    Args:
        shares: of the training images.
        budget_minutes: the time for new trainings; those that would exceed it are left out.
        target: a Markdown file for a copy of the page, with the plot beside it.

    Returns:
        What `compare.json` holds.

    Raises:
        ParamsError: a method or share is not valid, or there are several backbones to fine-tune.
        DataError: the features are missing.
        GraftError: the head is not linear, or nothing could be trained.
    """
    check(methods, shares, seeds)
    paths = Paths(root)
    settings = load_params(paths.params)
    metric_of_studies(None, settings)
    pack = read_feature_set(paths.features)
    _refuse_several(pack, methods)
    pack = replace(pack, views_VD=np.empty((0, pack.stored_ND.shape[1]), pack.stored_ND.dtype))
    tracker = Tracker(root)  # first: a server that does not answer must be noticed at once
    memory = paths.state / "compare" / "cells" / _digest(pack, settings)
    left_out: dict[str, str] = {}
    with tracker.recorded("compare") as run_id:
        parts = _parts(pack, shares, seeds, left_out)
        cells = list(_train(parts, methods, pack, settings, paths, memory, budget_minutes, left_out))
        if not cells:
            raise GraftError(
                "nothing could be compared",
                got="; ".join(f"{name}: {reason}" for name, reason in left_out.items()),
                todo="import more images, or use larger --shares",
            )
        found = _document(cells, pack, settings, left_out, paths, run_id)
        _write(found, _judged(pack, settings), paths, target)
        _record(tracker, found, paths)
    return found


def check(methods: Sequence[str], shares: Sequence[float], seeds: int) -> None:
    """Raises:
    ParamsError: see `compare_methods`.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise ParamsError(
            "--methods", got=", ".join(unknown) or "none", allowed=", ".join(METHODS), todo="name some of these methods"
        )
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ParamsError(
            "--shares", got=", ".join(map(str, shares)), allowed="numbers above 0, up to 1", todo="correct them"
        )
    if seeds < 1:
        raise ParamsError("--seeds", got=seeds, allowed=">= 1", todo="use 1 or more")


def _refuse_several(pack: FeatureSet, methods: Sequence[str]) -> None:
    """Raises:
    ParamsError: several backbones or sizes would have to be fine-tuned.
    """
    if len(pack.eyes) > 1 and set(methods) - {"head"}:
        raise ParamsError(
            "`graft compare` can only fine-tune one backbone at one size",
            got=f"{', '.join(methods)}, with {backbones(pack.fingerprint)}",
            allowed="--methods head, or one backbone and one size in `features`",
            todo="use `--methods head`, or name one backbone and run `graft repro`",
        )


def _digest(pack: FeatureSet, settings: Params) -> str:
    """The name of the folder of finished trainings: other images, features or parameters are another comparison."""
    index = pack.index[["image_id", "label", "task", "split"]].to_csv(index=False)
    return json_digest({
        "rules": RULES,
        "features": pack.fingerprint["digest"],
        "images": index,
        "head": settings.head.model_dump(mode="json"),
        "finetune": settings.finetune.model_dump(mode="json", exclude=FREE | {"init", "layers", "seed"}),
    })[:16]  # fmt: skip


def _parts(pack: FeatureSet, shares: Sequence[float], seeds: int, left_out: dict[str, str]) -> list[Part]:
    """Larger parts contain the smaller ones of the same seed."""
    train_rows = pack.rows("train")
    stratum, unit = strata(pack, train_rows), units_of(pack, train_rows)[0]
    found: list[Part] = []
    for seed in range(seeds):
        for share, places in zip(sorted(shares), growing(stratum, unit, sorted(shares), seed), strict=True):
            rows = train_rows[places]
            inner = rows[growing(strata(pack, rows), units_of(pack, rows)[0], [INNER], seed)[0]]
            part = Part(share, seed, np.setdiff1d(rows, inner), inner)
            if not len(part.learned) or lacks_a_class(pack, train_rows, part.learned):
                left_out[f"{share:g} of the images, seed {seed}"] = (
                    f"{len(rows)} images are too few: each class needs images to learn from and images to choose by"
                )
            else:
                found.append(part)
    return found


def _train(
    parts: Sequence[Part],
    methods: Sequence[str],
    pack: FeatureSet,
    settings: Params,
    paths: Paths,
    memory: Path,
    budget_minutes: float | None,
    left_out: dict[str, str],
) -> Iterator[Cell]:
    """The cheap ones first: heads, then the methods that train least, each at growing sizes."""
    started = time.perf_counter()
    for method in [name for name in METHODS if name in methods]:
        for part in sorted(parts, key=lambda part: (part.share, part.seed)):
            name = f"{method}, {part.share:g} of the images, seed {part.seed}"
            file = memory / f"{method}-{part.share:g}-{part.seed}.npz"
            if file.is_file():
                yield _read(file)
                continue
            left = None if budget_minutes is None else 60 * budget_minutes - (time.perf_counter() - started)
            cell = _cell(method, part, pack, settings, paths, left)
            if cell is None:
                left_out[name] = f"it would exceed the {budget_minutes:g} minutes of --budget-minutes"
                say(f"compare: {name}: {left_out[name]}")
                continue
            _keep(cell, file)
            metric = metric_named(metric_of_studies(None, settings), pack.task)
            value = metric_of(cell.output, pack.targets(pack.rows("val")), metric.key, pack.task)
            say(f"compare: {name}: {metric.text(value)}, {cell.seconds:.0f} s")
            yield cell


def _cell(
    method: str, part: Part, pack: FeatureSet, settings: Params, paths: Paths, left_seconds: float | None
) -> Cell | None:
    """One training; None if it would take longer than the time that is left."""
    if left_seconds is not None and left_seconds <= 0:
        return None
    judged, mine = pack.rows("val"), _of_part(pack, part)
    started = time.perf_counter()
    selected, final = _head(mine, settings.head, paths)
    if method == "head":
        output = final.output(pack.matrix(judged))
        return Cell(method, part.share, part.seed, len(part.rows), 0, 0, time.perf_counter() - started, output)
    if not isinstance(selected, LinearHead):
        raise GraftError(
            "`graft compare` can only fine-tune from a linear head",
            got=f"a head of kind {selected.kind}, by `head.kind`",
            allowed="head.kind: auto | logistic | ridge",
            todo="set `head.kind: auto`, or use `--methods head`",
        )
    from graft.tasks.finetune.session import Job

    known = weighed(mine, class_weights(mine, settings.head))
    job = Job(_params(settings.finetune, method, part.seed), known, selected, paths, part.learned, part.inner, judged)
    if left_seconds is not None and job.seconds() > left_seconds:
        return None
    course = job.run(job.checkpoint(), None)
    output = job.output(judged)
    job.checkpoint().unlink(missing_ok=True)
    epochs = len(course.rows)
    seconds = course.preparation + course.seconds  # an interrupted training included
    return Cell(method, part.share, part.seed, len(part.rows), epochs * len(part.learned), epochs, seconds, output)


def _of_part(pack: FeatureSet, part: Part) -> FeatureSet:
    """The feature set with this part's splits."""
    split = np.full(len(pack.index), "", dtype=object)
    split[part.learned], split[part.inner] = "train", "val"
    return replace(pack, index=pack.index.assign(split=split))


def _head(mine: FeatureSet, params: HeadParams, paths: Paths) -> tuple[Head, Head]:
    """As in the stage `head`: the head before and after refitting it to the images that it was chosen by too."""
    choice = choose_combined(mine, params, paths.tmp)
    if not params.refit:
        return choice.head, choice.head
    return choice.head, retrain(choice, mine, mine.rows("train", "val"), params, paths.tmp)


def _params(own: FinetuneParams, method: str, seed: int) -> FinetuneParams:
    scratch = method == "scratch"
    return own.model_copy(
        update={
            "mode": "on",
            "init": "scratch" if scratch else "pretrained",
            "layers": "all" if scratch else method,
            "seed": seed,
            "processes": 1,
        }
    )


def _keep(cell: Cell, file: Path) -> None:
    facts = {key: value for key, value in vars(cell).items() if key != "output"}
    with whole_file(file) as part, part.open("wb") as opened:
        np.savez(opened, output=cell.output, facts=np.array(json.dumps(facts)))


def _read(file: Path) -> Cell:
    with np.load(file) as kept:
        return Cell(**json.loads(str(kept["facts"])), output=kept["output"])


def _document(
    cells: list[Cell], pack: FeatureSet, settings: Params, left_out: dict[str, str], paths: Paths, run_id: str
) -> dict[str, Any]:
    judged = _judged(pack, settings)
    sizes = [[eye.fingerprint["transform"][side] for side in ("height", "width")] for eye in pack.eyes]
    found = points(cells, judged)
    return {
        **provenance(paths, "compare", run_id),
        "backbone": backbones(pack.fingerprint),
        "image_size": sizes[0] if len(sizes) == 1 else sizes,
        "task": pack.task,
        "metric": judged.metric,
        "margin": judged.margin,
        "train_images": len(pack.rows("train")),
        "judged": len(judged.target),
        "units": judged.units,
        "confidence": judged.confidence,
        "points": [asdict(point) for point in found],
        "crossings": crossings(found, judged.named),
        "advice": advice(found, judged.named, as_good_as_the_best(cells, judged)),
        "left_out": left_out,
    }


def _judged(pack: FeatureSet, settings: Params) -> Held:
    val, metric = pack.rows("val"), metric_of_studies(None, settings)
    return Held(
        pack.targets(val), units_of(pack, val)[0], pack.task, metric, settings.evaluate.confidence, settings.gate.margin
    )


def points_of(found: dict[str, Any]) -> list[Point]:
    return [Point(**{**row, "gain": tuple(row["gain"]) if row["gain"] else None}) for row in found["points"]]


def _write(found: dict[str, Any], judged: Held, paths: Paths, target: Path | None) -> None:
    folder = paths.state / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", found)
    table = pd.DataFrame(found["points"]).drop(columns="gain")
    table.to_csv(folder / "compare.csv", index=False)
    comparing_picture(points_of(found), judged, folder / "compare.png")
    (folder / "compare.md").write_text(page(found, "compare.png"), encoding="utf-8")
    if target is not None:
        picture = target.with_suffix(".png")
        with whole_file(picture) as part:
            shutil.copyfile(folder / "compare.png", part)
        with whole_file(target) as part:
            part.write_text(page(found, picture.name), encoding="utf-8")


def _record(tracker: Tracker, found: dict[str, Any], paths: Paths) -> None:
    folder = paths.state / "compare"
    metrics = {
        f"{row['method']}_{row['share']:g}": {
            found["metric"]: row["value"], "low": row["low"], "high": row["high"], "seconds": row["seconds"],
            "images": row["images"], "images_seen": row["seen"],
        }
        for row in found["points"]
    }  # fmt: skip
    curves = {
        f"{method}_{found['metric']}_by_images": [
            (row["images"], row["value"]) for row in found["points"] if row["method"] == method
        ]
        for method in {row["method"] for row in found["points"]}
    }
    facts = {"advice": found["advice"], **{f"crossing_{n}": text for n, text in enumerate(found["crossings"], 1)}}
    files = [folder / name for name in ("compare.json", "compare.csv", "compare.md", "compare.png")]
    dataset = DatasetRecord("raw", {"train": found["train_images"], "val": found["judged"]})
    tracker.log_record(
        found["mlflow_run_id"], Record({}, facts=facts, curves=curves, files=files, dataset=dataset), metrics,
        found["dataset"],
    )  # fmt: skip
