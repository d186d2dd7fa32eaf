"""preprocess: data/raw in, a manifest of checked and split images out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.core.errors import DataError
from ..common.core.files import md5, whole_file, whole_folder
from ..common.core.paths import Paths
from ..common.core.progress import progress, say
from ..common.core.record import DatasetRecord, Record
from ..common.data.manifest import BETWEEN, COLUMNS, SPLITS, by_class, classes, counts, task_of, write_table
from ..common.data.task import Task
from .check import WRONG_FORM, Look, judge, look
from .check_cache import Memory
from .params import PreprocessParams
from .scan import TABLE, hidden, scan
from .splits import PIN_COLUMNS, assign, torn

HIDDEN = "hidden file"
"""The reason that does not count against `preprocess.max_rejected`: systems leave such files about."""

INTERVALS = 20
"""Into how many of equal width numbers are sorted to be plotted."""

FACTS = ["reason", "width", "height", "mode", "pixels"]


def run(
    params: PreprocessParams, paths: Paths, known_hashes: Mapping[str, str], task: Task = "classification"
) -> Record:
    """Scans, checks, finds duplicates, splits.

    Args:
        known_hashes: path below data/raw -> md5 of the file, as far as DVC already knows them.
        task: what the labels are; the manifest tells it to the later stages.

    Raises:
        DataError: nothing to learn from, or more files rejected than `max_rejected`.
    """
    files = scan(paths.raw, task)
    files = files[files["path"] != TABLE].reset_index(drop=True)
    files["image_id"] = _hashes(files["path"], paths.raw, known_hashes)
    images, rejected = _check(files, params, paths)
    images, pins = _split(images, params, _read_pins(paths.pins), task)
    images, rejected = _hold_out(images, rejected)
    _stop_if_too_many(rejected, len(files), params.max_rejected, paths.state / "rejected.csv")
    images = images.assign(channels=params.channels, task=task)
    manifest = images[list(COLUMNS)].astype(COLUMNS).sort_values("path", ignore_index=True)
    _stop_if_nothing_to_learn(manifest, paths.raw, task)
    _warn_of_another_task(manifest)
    _warn_of_small_classes(manifest)
    _warn_of_torn_groups(manifest)
    _write(manifest, rejected, pins, paths)
    return _record(manifest, rejected, paths)


def _check(files: pd.DataFrame, params: PreprocessParams, paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(images that can be used, with their facts; all other files, with a `reason`)."""
    reasons = pd.Series("", index=files.index)
    reasons[files["image_id"] == ""] = "cannot be read"
    reasons[files["path"].map(hidden)] = HIDDEN
    open_files = files[reasons == ""]
    looks = Memory(paths.cache / "checks", params.channels).looks(
        dict(zip(open_files["image_id"], paths.raw / open_files["path"])), lambda path: look(path, params.channels)
    )
    facts = pd.DataFrame(
        [_facts(looks[md5], params) for md5 in open_files["image_id"]], index=open_files.index, columns=FACTS
    )
    table = files.join(facts)
    table["reason"] = reasons.where(reasons != "", table["reason"])
    table.loc[(table["reason"] == "") & table["label"].isna(), "reason"] = (
        "no label: not in a folder of a class, nor in the table"
    )
    sound = table["reason"] == ""
    return table[sound].reset_index(drop=True), table[~sound]


def _facts(seen: Look | OSError, params: PreprocessParams) -> tuple[str, int, int, str, str]:
    if isinstance(seen, OSError):
        return f"cannot be read: {seen.strerror}", 0, 0, "", ""
    reason = judge(seen, params.min_side, params.placeholder_share)
    return reason, seen.width, seen.height, seen.mode, seen.pixels


def _split(
    images: pd.DataFrame, params: PreprocessParams, pins: pd.DataFrame, task: Task
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every sound image gets its `split`, those that are held out afterwards too: so that to hold one out moves none.

    What stays together: the images of a group; where there is none, the copies of the same pixels.
    """
    keys = ("group:" + images["group"].astype("string")).fillna("pixels:" + images["pixels"].astype("string"))
    keyed = images.assign(key=keys.astype(object))
    split, pins = assign(keyed, params.val_fraction, params.test_fraction, params.seed, pins, task)
    return images.assign(split=split, given=images["split"]), pins


def _hold_out(images: pd.DataFrame, rejected: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same pixels under two labels are no evidence for either; in two splits, they would leak."""
    reasons = pd.Series("", index=images.index)
    copies = images[images["pixels"].duplicated(keep=False)]
    for _, same in copies.groupby("pixels"):
        if same["label"].nunique() > 1:
            named = ", ".join(f"{r.label or 'no class'} ({r.path})" for r in same.itertuples())
            reasons[same.index] = f"same pixels under two labels: {named}"
    one_label = copies[reasons[copies.index] == ""]
    out = torn(one_label)
    for _, same in one_label[one_label["pixels"].isin(one_label.loc[out, "pixels"])].groupby("pixels"):
        first_of = same.groupby("split")["path"].first()
        for row in same[out[same.index]].itertuples():
            nearest = max((split for split in first_of.index if split != row.split), key=SPLITS.index)
            reasons[row.Index] = f"same pixels as an image of {nearest}: {first_of[nearest]}"
    held = reasons != ""
    return images[~held].reset_index(drop=True), pd.concat([rejected, images[held].assign(reason=reasons[held])])


def _stop_if_too_many(rejected: pd.DataFrame, total: int, limit: float, listing: Path) -> None:
    allowed = limit * total if limit < 1 else limit
    counted = rejected[rejected["reason"] != HIDDEN]
    if len(counted) <= allowed:
        return
    with whole_file(listing) as part:
        rejected[["path", "reason"]].to_csv(part, index=False)
    kinds = Counter(reason.split(":")[0] for reason in counted["reason"])
    bands = ", set `preprocess.channels` to the bands that the images have" if kinds[WRONG_FORM] else ""
    raise DataError(
        "more files were rejected than `preprocess.max_rejected` allows",
        got=f"{len(counted)} of {total}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        allowed=f"{limit:g}" + (f" of all files = {allowed:.0f}" if limit < 1 else ""),
        todo=f"see {listing.parent.name}/{listing.name}; mend or remove the files{bands}, "
        "or raise `preprocess.max_rejected`",
    )


def _hashes(files: pd.Series, raw: Path, known: Mapping[str, str]) -> list[str]:
    """The md5 of each file; empty for one that cannot be read."""
    unknown = [file for file in files if file not in known]
    with progress("preprocess: hashing", len(unknown), "files") as bar:
        fresh = {}
        for file in unknown:
            try:
                fresh[file] = md5(raw / file)
            except OSError:
                fresh[file] = ""
            bar.add()
    return [known.get(file) or fresh[file] for file in files]


def _read_pins(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(
            {"seed": pd.Series(dtype="int64"), "key": pd.Series(dtype=object), "split": pd.Series(dtype=object)}
        )
    return pd.read_csv(path, dtype={"seed": "int64", "key": object, "split": object}, usecols=PIN_COLUMNS)[PIN_COLUMNS]


def _stop_if_nothing_to_learn(manifest: pd.DataFrame, raw: Path, task: Task) -> None:
    _CHECKS[task](manifest, raw)
    named = task != "regression"
    for split in SPLITS:
        if not (manifest["split"] == split).any():
            raise DataError(
                f"no image is left for the split {split}",
                got=f"{len(manifest)} images",
                allowed="at least three images (or three groups)" + (", of one class at least" if named else ""),
                todo="add images" + ("; if labels are numbers, set `head.task: regression`" if named else ""),
            )


def _stop_without_two_classes(manifest: pd.DataFrame, raw: Path) -> None:
    names = classes(manifest) if len(manifest) else []
    if len(names) < 2:
        raise DataError(
            f"{raw} holds images of fewer than two classes",
            got=", ".join(names) or "no image",
            allowed="at least two classes of at least three images",
            todo="check that the folders' names are the classes",
        )


def _stop_without_a_class(manifest: pd.DataFrame, raw: Path) -> None:
    """What every image has, or none, teaches nothing."""
    found = counts(manifest) if len(manifest) else {}
    train = int((manifest["split"] == "train").sum())
    if all(count["train"] in (0, train) for count in found.values()):
        everywhere = [name for name, count in found.items() if count["train"]]
        raise DataError(
            f"{raw}: no class tells the training images apart",
            got=f"{train} images, of which all have: {', '.join(everywhere) or 'no class'}",
            allowed="at least one class that some images have and others have not",
            todo="check the labels in labels.csv",
        )


def _stop_without_two_numbers(manifest: pd.DataFrame, raw: Path) -> None:
    numbers = manifest.loc[manifest["split"] == "train", "label"].unique()
    if len(numbers) < 2:
        raise DataError(
            f"{raw}: all training images have the same number",
            got=", ".join(numbers) or "no image",
            allowed="numbers that differ",
            todo="check the column in labels.csv",
        )


_CHECKS = {
    "classification": _stop_without_two_classes,
    "multilabel": _stop_without_a_class,
    "regression": _stop_without_two_numbers,
}


def _warn_of_another_task(manifest: pd.DataFrame) -> None:
    joined = [name for name in classes(manifest) if BETWEEN in name]
    if joined:
        say(f"preprocess: each of these is one class: {_some(joined)}; for several set `head.task: multilabel`")


def _warn_of_small_classes(manifest: pd.DataFrame) -> None:
    lacking = [name for name, count in counts(manifest).items() if not all(count.values())]
    if lacking:
        say(f"preprocess: too few images to have one in each split: {_some(lacking)}")


def _warn_of_torn_groups(manifest: pd.DataFrame) -> None:
    """Only splits that the data bring can tear a group: they are kept, but the test may then be too easy."""
    splits = manifest.groupby("group")["split"].nunique()
    names = [str(name) for name in splits.index[splits > 1]]
    if names:
        say(f"preprocess: the splits that the data bring tear groups apart: {_some(names)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _write(manifest: pd.DataFrame, rejected: pd.DataFrame, pins: pd.DataFrame, paths: Paths) -> None:
    with whole_file(paths.pins) as part:
        pins.to_csv(part, index=False)
    with whole_folder(paths.manifest) as folder:
        write_table(manifest, folder / "manifest.parquet")
        listed = rejected[["path", "reason", "label"]].astype("string").sort_values("path", ignore_index=True)
        write_table(listed, folder / "rejected.parquet")
    with whole_folder(paths.plots("preprocess")) as folder:
        _balance(manifest).to_csv(folder / "classes.csv", index=False)


def _balance(manifest: pd.DataFrame) -> pd.DataFrame:
    """Columns `label`, `split`, `images`; numbers are counted in intervals, whose names sort as the numbers do."""
    rows = by_class(manifest)
    if task_of(manifest) == "regression":
        numbers = manifest["label"].astype(float)
        edges = np.linspace(numbers.min(), numbers.max(), INTERVALS + 1)
        digits = 4 if edges[-1] - edges[0] > 1e-2 * np.abs(edges).max() else 9
        names = [f"{n:02}: {edges[n]:.{digits}g} to {edges[n + 1]:.{digits}g}" for n in range(INTERVALS)]
        places = np.searchsorted(edges[1:-1], numbers, side="left")
        rows = manifest.assign(label=[names[n] for n in places])
    return rows.groupby(["label", "split"], sort=True).size().rename("images").reset_index()


def _record(manifest: pd.DataFrame, rejected: pd.DataFrame, paths: Paths) -> Record:
    reasons = Counter(reason.split(":")[0] for reason in rejected["reason"])
    labels = _labels(manifest)
    metrics: dict[str, Any] = {
        "task": task_of(manifest),
        "images": len(manifest),
        **{name: len(value) if name == "classes" else value for name, value in labels.items()},
        "rejected": len(rejected),
        "duplicates": int(manifest["pixels"].duplicated().sum()),
        "by_split": {split: int((manifest["split"] == split).sum()) for split in SPLITS},
        "by_reason": dict(sorted(reasons.items())),
    }
    return Record(
        metrics=metrics,
        files=[
            paths.manifest / "manifest.parquet",
            paths.manifest / "rejected.parquet",
            paths.plots("preprocess") / "classes.csv",
        ],
        dataset=DatasetRecord("raw", {"images": len(manifest), **labels}),
    )


def _labels(manifest: pd.DataFrame) -> dict[str, Any]:
    """`classes` (name -> images), or what the numbers are like."""
    if task_of(manifest) != "regression":
        return {"classes": {name: sum(count.values()) for name, count in counts(manifest).items()}}
    numbers = manifest["label"].astype(float)
    return {f"target_{name}": float(getattr(numbers, name)()) for name in ("min", "mean", "max")}
