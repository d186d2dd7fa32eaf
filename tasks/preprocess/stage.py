"""preprocess: data/raw in, a manifest of checked and split images out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml

from ..common.core.files import whole_file, whole_folder
from ..common.core.paths import Paths
from ..common.core.progress import progress
from ..common.core.record import Record
from ..common.data.manifest import COLUMNS, write_table
from ..common.data.task import Task
from ..common.images.reading import Reading
from ..common.images.shards import hash_of
from .layouts import FURTHER, MASK
from .learnable import stop_if_nothing_to_learn, warn_of_doubtful_labels
from .masks import faults_of_masks, faults_of_targets
from .params import PreprocessParams
from .pins import GROUP, lists_classes, read_pins
from .rejections import check_files, hold_out, stop_if_too_many
from .relabel import relabel, to_learn_from
from .scan import TABLE, scan
from .splits import adopt, assign
from .summary import balance, record
from .value_range import reading_of


def run(
    params: PreprocessParams, paths: Paths, known_hashes: Mapping[str, str], task: Task = "classification"
) -> Record:
    """Scans the folder, checks the files, splits the images and holds out duplicates.

    Args:
        known_hashes: path below data/raw -> md5 of the file, where DVC already knows it.
        task: what the labels are; the later stages read it from the manifest.

    Raises:
        DataError: there is nothing to learn from, or more files were rejected than `max_rejected` allows.
    """
    files = scan(paths.raw, task)
    files = files[files["path"] != TABLE].reset_index(drop=True)
    files["image_id"] = _hashes(files["path"], paths.raw, known_hashes)
    files = relabel(files, paths.labels, task)
    images, rejected = check_files(files, params, paths)
    images, rejected = _check_further(images, rejected, params, paths, known_hashes)
    images["split"] = images["split"].mask(to_learn_from(images), "train")
    images, pins = _split(images, params, paths, task)
    images, rejected = hold_out(images, rejected)
    stop_if_too_many(
        rejected,
        len(files) + sum(files[name].nunique() for name in FURTHER),
        params.max_rejected,
        paths.state / "rejected.csv",
    )
    reading = reading_of(images, params)
    images = images.assign(channels=params.channels, task=task)
    manifest = images[list(COLUMNS)].astype(COLUMNS).sort_values("path", ignore_index=True)
    stop_if_nothing_to_learn(manifest, paths.raw, task)
    warn_of_doubtful_labels(manifest)
    _write(manifest, rejected, pins, reading, paths)
    return record(manifest, rejected, paths)


def _check_further(
    images: pd.DataFrame, rejected: pd.DataFrame, params: PreprocessParams, paths: Paths, known: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Takes masks and targets that cannot be used from their images, and lists them with what is rejected."""
    for column in FURTHER:
        named = images[column].dropna().drop_duplicates()
        md5_of = dict(zip(named, _hashes(named, paths.raw, known)))
        is_mask = column == MASK
        faults = faults_of_masks(images, md5_of, params, paths) if is_mask else faults_of_targets(md5_of, params, paths)
        is_bad = images[column].isin(set(faults))
        if is_bad.any():
            bad = images[is_bad].drop_duplicates(column)
            rejected = pd.concat([rejected, bad.assign(path=bad[column], reason=bad[column].map(faults))])
            images = images.assign(**{column: images[column].mask(is_bad, None)})
    return images, rejected


def _split(
    images: pd.DataFrame, params: PreprocessParams, paths: Paths, task: Task
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gives every usable image its `split`, before duplicates are held out: holding one out then moves no other image.

    The images of a group stay together; without a group, copies of the same pixels do.
    """
    keys = (GROUP + images["group"].astype("string")).fillna("pixels:" + images["pixels"].astype("string"))
    keyed = images.assign(key=keys.astype(object))
    shares, pins = (params.val_fraction, params.test_fraction), read_pins(paths.pins)
    if _was_split_by_hash(pins, paths):
        pins = adopt(keyed, *shares, params.seed, pins, task)
    split, pins = assign(keyed, *shares, params.seed, pins, task)
    return images.assign(split=split, given=images["split"]), pins


def _was_split_by_hash(pins: pd.DataFrame, paths: Paths) -> bool:
    """Whether earlier runs of the project listed no classes: none of its images may move now. Pins of small classes
    tell it, or DVC's record of an earlier run."""
    lock = paths.root / "dvc.lock"
    if lists_classes(pins) or not (len(pins) or lock.is_file()):
        return False
    recorded = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.is_file() else None
    return bool(len(pins)) or "preprocess" in ((recorded or {}).get("stages") or {})


def _hashes(files: pd.Series, raw: Path, known: Mapping[str, str]) -> list[str]:
    """The md5 of each file; empty for a file that cannot be read."""
    unknown = [file for file in files if file not in known]
    with progress("preprocess: hashing", len(unknown), "files") as bar:
        fresh = {}
        for file in unknown:
            try:
                fresh[file] = hash_of(raw / file)
            except OSError:
                fresh[file] = ""
            bar.add()
    return [known.get(file) or fresh[file] for file in files]


def _write(manifest: pd.DataFrame, rejected: pd.DataFrame, pins: pd.DataFrame, reading: Reading, paths: Paths) -> None:
    with whole_file(paths.pins) as part:
        pins.to_csv(part, index=False)
    with whole_folder(paths.manifest) as folder:
        write_table(manifest, folder / "manifest.parquet")
        listed = rejected[["path", "reason", "label"]].astype("string").sort_values("path", ignore_index=True)
        write_table(listed, folder / "rejected.parquet")
        reading.save(folder)
    with whole_folder(paths.plots("preprocess")) as folder:
        balance(manifest).to_csv(folder / "classes.csv", index=False)
