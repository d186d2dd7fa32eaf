"""The head of the task `reconstruction`: a decoder from the frozen maps to an image.

It is compared with the same decoder on the maps of the same network with random weights, and for masks with a threshold
of grey values.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..common.core.errors import DataError
from ..common.core.files import whole_folder, write_json
from ..common.core.paths import Paths
from ..common.core.progress import progress, say
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.manifest import write_table
from ..common.data.units import units_of
from ..common.heads.calibration import FILE, Calibration
from ..common.heads.decoder import DecoderHead, Plan
from ..common.maps.keep import check_room
from ..common.maps.maps import Maps, open_maps
from ..common.maps.targets import Targets
from ..common.maps.untrained import is_untrained, untrained
from ..common.scoring.decoded import scores
from ..common.scoring.judging import Judge, pixel_threshold, threshold_table
from ..common.scoring.pixel_threshold import PixelThreshold
from .params import HeadParams

if TYPE_CHECKING:
    from .decoder import Lessons

CONFIDENCE = 0.95
"""Of the intervals of metrics on validation."""

SEEN, FEWEST, MOST = 12_000, 5, 60
"""`head.decoder_epochs: auto`: so many images are seen in all, in no fewer and no more epochs than these."""

UNTRAINED = "untrained"
"""The name of the decoder on random weights in models/head, and in the metrics."""


@dataclass(frozen=True)
class Learned:
    """A trained decoder, with its losses by epoch and its table of held-out images."""

    head: DecoderHead
    maps: Maps
    losses: list[tuple[float, float]]
    held: pd.DataFrame

    @property
    def best(self) -> int:
        """The epoch that is kept, from 0 on."""
        return int(np.argmin([held for _, held in self.losses]))


def run(params: HeadParams, paths: Paths, pack: FeatureSet) -> Record:
    """Trains the decoder on training images; validation images choose the epoch and, of masks, the threshold.

    Raises:
        ParamsError: the maps do not show whole images, or the disk has no room for them.
        DataError: there are no targets, or none in the training or the validation images.
    """
    maps = open_maps(pack, paths)
    targets = Targets.of(pack, paths, maps.graph.spec.transform, params.target)
    learned, held = (targets.usable(pack.rows(split)) for split in ("train", "val"))
    _check(targets, learned, held)
    found = {"pretrained": _learn(maps, targets, learned, held, params)}
    if is_untrained(maps):
        say("head: the backbone has random weights, so there is nothing to compare them with")
        found = {UNTRAINED: found["pretrained"]}
    elif params.untrained:
        say("head: the same decoder on the network with random weights, to compare with (`head.untrained`)")
        found[UNTRAINED] = _learn(untrained(maps), targets, learned, held, params)
    grey = pixel_threshold(targets, np.concatenate([learned, held])) if params.target == "mask" else None
    chosen = next(iter(found.values()))
    metrics = _metrics(found, targets, grey, held)
    _write(found, grey, metrics, held, pack, paths)
    return _record(chosen, metrics, len(learned), len(held), paths)


def _check(targets: Targets, learned: Rows, held: Rows) -> None:
    for split, rows in (("train", learned), ("val", held)):
        marked = targets.pack.index["mask"].iloc[rows].notna().any()
        if len(rows) and (targets.kind != "mask" or marked):
            continue
        what = "with a mask" if targets.kind == "mask" else f"with a {targets.kind}" if len(rows) else "at all"
        raise DataError(
            f"no image in the split {split} has what `head.target: {targets.kind}` needs",
            got=f"{len(rows)} images, none {what}",
            allowed="at least one in train and one in val",
            todo=f"give some of them to {split} in the table's column split, or leave that column out",
        )


def _learn(maps: Maps, targets: Targets, learned: Rows, held: Rows, params: HeadParams) -> Learned:
    from .decoder import Course, train

    plan = Plan.of(
        [(one.channels, one.height, one.width) for one in maps.form.levels],
        targets.shape,
        params.decoder_width,
        4 * params.decoder_width,
    )
    course = Course(params.target, epochs_of(params, len(learned)), seed=params.seed)
    rows, n, losses = np.concatenate([learned, held]), len(learned), []
    best: DecoderHead | None = None
    with _lessons(maps, targets, rows) as lessons, progress("head: training", course.epochs, "epochs") as bar:
        for epoch in train(plan, lessons, np.arange(n), np.arange(n, len(rows)), course):
            losses.append((epoch.train_loss, epoch.held_loss))
            best = epoch.head or best
            bar.add(1)
            if len(losses) - int(np.argmin([held for _, held in losses])) > params.decoder_patience:
                break
    if best is None:
        raise DataError(
            "no epoch of the decoder has a finite loss on the validation images",
            got=f"{len(losses)} epochs",
            todo="check the images for extreme values, or name other depths in `features.maps`",
        )
    judge = Judge(best, maps, targets)
    if params.target == "mask":
        judge = replace(judge, head=replace(best, threshold=judge.best_threshold(held)))
    return Learned(judge.head, maps, losses, judge.table(held, "head: comparing"))


def epochs_of(params: HeadParams, images: int) -> int:
    """Passes over the training images at most."""
    if params.decoder_epochs != "auto":
        return params.decoder_epochs
    return min(MOST, max(FEWEST, math.ceil(SEEN / images)))


@contextmanager
def _lessons(maps: Maps, targets: Targets, rows: Rows) -> Iterator[Lessons]:
    """Maps and targets in one file each, for reading in any order in little memory; removed at the end.

    Raises:
        ParamsError: the disk has no room for them.
    """
    from .decoder import Lessons

    maps.paths.tmp.mkdir(parents=True, exist_ok=True)
    check_room(maps.paths, len(rows) * (maps.form.bytes + math.prod(targets.shape)), len(rows))
    with tempfile.TemporaryDirectory(dir=maps.paths.tmp) as name:
        maps_ND = np.lib.format.open_memmap(Path(name, "maps.npy"), "w+", np.float16, (len(rows), maps.form.dimension))
        for places, block in maps.blocks(rows):
            maps_ND[places] = block
        targets_NCHW = np.lib.format.open_memmap(Path(name, "targets.npy"), "w+", np.uint8, (len(rows), *targets.shape))
        with progress("head: reading targets", len(rows)) as bar:
            for place, target in targets.read_all(rows):
                targets_NCHW[place] = target
                bar.add(1)
        yield Lessons(maps_ND, targets_NCHW)


def _metrics(found: dict[str, Learned], targets: Targets, grey: PixelThreshold | None, held: Rows) -> dict[str, Any]:
    """Of the held-out images, by decoder and by the threshold of grey values."""
    unit_N = units_of(targets.pack, held)[0]
    metrics: dict[str, Any] = {
        "candidates": {name: scores(one.held, unit_N, CONFIDENCE) for name, one in found.items()}
    }
    if grey is not None:
        of_grey = scores(threshold_table(targets, held, grey), unit_N, CONFIDENCE)
        metrics["pixel_threshold"] = {**asdict(grey), **of_grey}
    return metrics


def _write(
    found: dict[str, Learned],
    grey: PixelThreshold | None,
    metrics: dict[str, Any],
    held: Rows,
    pack: FeatureSet,
    paths: Paths,
) -> None:
    """head.*: the decoder; selected.*: the same, as nothing is trained again; untrained.*: that on random weights;
    pixel_threshold.json; calibration.json, which changes nothing; validation.parquet: metrics of held-out images."""
    chosen, other = next(iter(found.values())), found.get(UNTRAINED)
    key = "dice" if chosen.head.target == "mask" else "ssim"  # the margin of the gate is a share
    facts = {"estimator": "decoder", "epochs": chosen.best + 1, "metric": key, "class_weights": None}
    table = pack.index.iloc[held][["image_id", "label"]].reset_index(drop=True)
    with whole_folder(paths.head) as folder:
        for name in ("head", "selected"):
            chosen.head.save(folder, name, refitted=False, **facts)
        if other is not None and other is not chosen:
            other.head.save(folder, UNTRAINED, weights=other.maps.fingerprint["weights"])
        if grey is not None:
            write_json(folder / "pixel_threshold.json", asdict(grey))
        Calibration().save(folder)
        write_table(pd.concat([table, chosen.held], axis=1), folder / "validation.parquet")
    with whole_folder(paths.plots("head")) as folder:
        rows = [(epoch, train, val) for epoch, (train, val) in enumerate(chosen.losses, 1)]
        pd.DataFrame(rows, columns=["along", "train_loss", "val_loss"]).to_csv(folder / "path.csv", index=False)


def _record(chosen: Learned, metrics: dict[str, Any], learned: int, held: int, paths: Paths) -> Record:
    own = next(iter(metrics["candidates"].values()))
    return Record(
        metrics={
            **{f"val_{key}": value for key, value in own.items()},
            **metrics,
            "epochs": chosen.best + 1,
            "tried": len(chosen.losses),
            "train_loss": chosen.losses[chosen.best][0],
            "val_loss": chosen.losses[chosen.best][1],
            "train_images": learned,
            "val_images": held,
            "parameters": sum(weight.size for weight in chosen.head.weights.values()),
        },
        facts={"kind": "decoder", "target": chosen.head.target},
        curves={
            "path_train_loss": [(epoch, loss) for epoch, (loss, _) in enumerate(chosen.losses)],
            "path_val_loss": [(epoch, loss) for epoch, (_, loss) in enumerate(chosen.losses)],
        },
        files=[paths.head / "head.json", paths.head / FILE, paths.plots("head") / "path.csv"],
    )
