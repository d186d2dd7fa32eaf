"""Splits that never move: a function of the pixels' (or the group's) hash and a seed.

The hashes may leave a small class without an image in some split. One image is then moved there, and the move is
written to the pins, a small table that is versioned with the repository. Without such a memory no rule can both fill
every split of a small class and keep every image in its split when the class grows (of four images two share a split,
and with any third they would leave one of the three empty). Where an image may have several classes, this holds for
each of them: an image is moved for one class only if no other class loses its last image in that split. Where labels
are numbers, it holds for the images as a whole.

Copies of the same pixels in two groups would tie the groups together, and one group would have to move when the second
copy arrives. So each group is placed on its own, and copies that lie in different splits are held out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pandas as pd

from ..common.data.manifest import SPLITS, names_in
from ..common.data.task import Task

PIN_COLUMNS = {"seed": "int64", "key": "object", "split": "object"}


def read_pins(path: Path) -> pd.DataFrame:
    """The pins of a project, none without the file."""
    if not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in PIN_COLUMNS.items()})
    return pd.read_csv(path, dtype=PIN_COLUMNS, usecols=list(PIN_COLUMNS))[list(PIN_COLUMNS)]


def place(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but `key` and `seed`."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def assign(
    images: pd.DataFrame,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    pins: pd.DataFrame,
    task: Task = "classification",
) -> tuple[pd.Series, pd.DataFrame]:
    """A split for every image.

    Args:
        images: columns `key` (images with the same key are placed together), `label`, `pixels`, `split` (given, or
            null).
        val_fraction, test_fraction: shares by which hashes are cut; where the data bring a test split of their own,
            only validation is cut.
        pins: moves made earlier, columns `seed`, `key`, `split`.
        task: what the labels are.

    Returns:
        The split of each image, and the pins with new moves appended. A given split is kept, except that validation
        images are taken from the training images where the data bring none.
    """
    if task == "regression":
        images = images.assign(label="")
    brings_val, brings_test = (images["split"].eq(name).any() for name in ("val", "test"))
    open_val, open_test = 0.0 if brings_val else val_fraction, 0.0 if brings_test else test_fraction
    pinned = dict(pins.loc[pins["seed"] == seed, ["key", "split"]].itertuples(index=False))
    place_of = {key: place(key, seed) for key in images["key"].unique()}
    placed = {key: pinned.get(key) or _by_hash(at, open_val, open_test) for key, at in place_of.items()}

    given = images["split"].where(images["split"].ne("train") | (open_val == 0.0))
    wanted = [name for name, brought in (("train", False), ("test", brings_test), ("val", brings_val)) if not brought]
    movable = _movable(images.assign(split=given if brings_test else images["split"])) - set(pinned)
    moves = _fill_small_classes(_by_class(images.assign(split=given), task), placed, place_of, movable, wanted)
    new = {key: split for key, split in moves.items() if key not in pinned}
    appended = pd.DataFrame([(seed, key, split) for key, split in new.items()], columns=list(PIN_COLUMNS))
    all_pins = pd.concat([pins, appended], ignore_index=True) if len(appended) else pins
    return _of_images(images, given, {**placed, **moves}), all_pins


def torn(images: pd.DataFrame) -> pd.Series:
    """Which images (columns `pixels`, `split`, and `given`: null where the hash decided) must be held out because the
    same pixels are in another split too.

    Where the data gave the splits, the copy nearest to the test stays. Otherwise none does: nobody knows which was
    there first, and keeping the wrong one would be a move.
    """
    out = pd.Series(False, index=images.index)
    for _, same in images[images["pixels"].duplicated(keep=False)].groupby("pixels"):
        if same["split"].nunique() > 1:
            settled = same["given"].where(same["given"].isin(["val", "test"]))  # the hash may take some of "train"
            kept = max(settled.dropna(), key=SPLITS.index, default=None)
            out[same.index] = settled.ne(kept) | (kept is None)
    return out


def _by_hash(at: float, val_fraction: float, test_fraction: float) -> str:
    return "test" if at < test_fraction else "val" if at < test_fraction + val_fraction else "train"


def _of_images(images: pd.DataFrame, given: pd.Series, placed: dict[str, str]) -> pd.Series:
    by_key = images["key"].map(placed)
    by_key = by_key.mask(images["split"].eq("train") & by_key.eq("test"), "train")  # given for training: never tested
    return given.where(given.notna(), by_key).astype(object)


def _by_class(images: pd.DataFrame, task: Task) -> pd.DataFrame:
    """A row for each class of each image, `label` being that class."""
    if task != "multilabel":
        return images
    return images.assign(label=images["label"].map(names_in)).explode("label", ignore_index=True)


def _movable(images: pd.DataFrame) -> set[str]:
    """Keys of images of one label that can move without overriding a given split or leaving a copy behind."""
    keys = images.groupby("key")
    alone = (keys["label"].nunique() == 1) & (keys["split"].count() == 0)
    keys_of_pixels = images.groupby("pixels")["key"].transform("nunique")
    return set(alone.index[alone]) - set(images.loc[keys_of_pixels > 1, "key"])


def _fill_small_classes(
    images: pd.DataFrame, placed: dict[str, str], place_of: dict[str, float], movable: set[str], wanted: list[str]
) -> dict[str, str]:
    """Moves keys so that each class has one in each wanted split, as far as its keys go: a single key trains, of two
    one is for the test. Keys whose split is given do not move.

    Returns what must be remembered: the moves, and every key of a class that is not complete yet, so that later images
    fill the gap.
    """
    memory: dict[str, str] = {}
    entangled = _entangled(images)
    standing = Counter((label, placed[key]) for key, labels in entangled.items() for label in labels)
    for name, rows in images[["label", "key", "split"]].groupby("label", sort=True):
        members = sorted(set(rows.loc[rows["split"].isna(), "key"]), key=place_of.__getitem__)
        now = {key: memory.get(key, placed[key]) for key in members}
        brought = set(rows["split"].dropna())
        lacking = [split for split in wanted[: len(members)] if split not in brought and split not in now.values()]
        for split in lacking:
            free = [
                key
                for key in members
                if key in movable
                and key not in memory
                and all(standing[label, now[key]] > 1 for label in entangled.get(key, []) if label != name)
            ]
            donor = _donor(now, free)
            if donor is not None:
                for label in entangled.get(donor, []):
                    standing[label, now[donor]] -= 1
                    standing[label, split] += 1
                memory[donor] = now[donor] = split
        if not {*wanted} <= {*now.values(), *brought}:
            memory |= now
    return memory


def _entangled(images: pd.DataFrame) -> dict[str, list[str]]:
    """key -> its labels, for keys whose split is open and whose class shares a key with another class."""
    pairs = images.loc[images["split"].isna(), ["key", "label"]].drop_duplicates()
    shared = pairs.loc[pairs["key"].duplicated(keep=False), "label"]
    found: dict[str, list[str]] = {}
    for key, label in pairs[pairs["label"].isin(shared)].itertuples(index=False):
        found.setdefault(key, []).append(label)
    return found


def _donor(now: dict[str, str], movable: list[str]) -> str | None:
    """The key to move: one from the largest split, that its split can spare or that is in a split that needs none."""
    sizes = Counter(now.values())
    spare = [key for key in movable if sizes[now[key]] > 1] or (movable if len(now) < len(SPLITS) else [])
    return max(spare, key=lambda key: sizes[now[key]], default=None)
