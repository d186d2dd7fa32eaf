"""Splits that never move: a function of the pixels' (or the group's) hash, a seed, and the pins.

Hashes alone give a class of 20 images one test image, or six, and a group of most images to any split. So the units of
small classes and all groups are dealt when they are first seen, such that each class has its shares (`balance`), and
written to the pins, a small table that is versioned with the repository. Without such a memory no rule can both balance
a class and keep every image in its split when the class grows (of four images two share a split, and with any third
they would leave one of the three empty). The images of larger classes are split by their hash, and need no memory.

A class with an empty split has one unit moved there, and the move is pinned. Where an image may have several classes,
this holds for each of them: an image is moved for one class only if no other class loses its last image in that split.
Where labels are numbers, all images are one class.

Defects never train, where the task is anomaly: a unit with a defect goes to validation or to the test, in the
proportion of their shares, by the same hash and pins. Given for training, it is used in validation.

Copies of the same pixels in two groups would tie the groups together, and one group would have to move when the second
copy arrives. So each group is placed on its own, and copies that lie in different splits are held out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..common.data.manifest import SPLITS, names_in
from ..common.data.task import GOOD, Task
from .balance import deal
from .pins import CLASS, FRACTIONS, GROUP, GROUPS, Pins, State, pins_of, with_rows

SMALL = 40
"""A class with fewer units is listed in the pins. By its hashes, one of 40 has at most one test image in 1.2 % of the
cases (with a share of 15 %); one of 20 has in 18 %."""

MOST_GROUPS = 10_000
"""With more groups than this, new ones are no longer listed: the table would be too large for git."""


@dataclass(frozen=True)
class Open:
    """What is to be split.

    Attributes:
        images: as `assign` gets them.
        given: the split of each image that is kept; null where it is open.
        classes: a row for each class of each image, `label`; `split` is what is given.
        val, test: the shares to cut; 0 for a split that the data bring.
        wanted: the splits that the data do not bring.
        place_of: the place of each key, see `place`.
        movable: keys that may move to a split that lacks their class.
        untrained: keys that never train, since they have a defect.
    """

    images: pd.DataFrame
    given: pd.Series
    classes: pd.DataFrame
    val: float
    test: float
    wanted: list[str]
    place_of: dict[str, float]
    movable: set[str]
    untrained: set[str]

    def by_hash(self, key: str) -> str:
        """The split that the place of a key alone gives."""
        return _by_hash(self.place_of[key], *(self.untrained_share if key in self.untrained else (self.val, self.test)))

    @property
    def untrained_share(self) -> tuple[float, float]:
        """The shares of validation and test of units that never train."""
        return _without_training(self.val, self.test)

    @property
    def fractions(self) -> str:
        return f"val {self.val:g} test {self.test:g}"


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
        val_fraction, test_fraction: the shares of both splits; where the data bring a test split of their own, only
            validation is cut.
        pins: splits that are remembered, see `pins`.
        task: what the labels are.

    Returns:
        The split of each image, and the pins with new rows appended. A given split is kept, except that validation
        images are taken from the training images where the data bring none. If a fraction has changed, listed units
        are dealt again.
    """
    data, known = _open(images, val_fraction, test_fraction, seed, task), pins_of(pins, seed)
    cut_again = known.fractions not in ("", data.fractions)
    if cut_again:
        data.place_of.update(_places_in(known, data))
    pinned = {} if cut_again else _pinned(known, data)
    states = _states(data, known)
    placed = _placed(data, pinned)
    dealt = _deal(data, states, pinned, placed)
    moves = _fill(data, placed | dealt, pinned)
    found = {**placed, **dealt, **moves}
    kept = {key: found[key] for key in {*dealt, *moves, *known.split_of} if key in found}
    facts = {FRACTIONS: data.fractions} if states else {}
    return _of_images(data, found), with_rows(pins, seed, {**kept, **states, **facts})


def adopt(
    images: pd.DataFrame,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    pins: pd.DataFrame,
    task: Task = "classification",
) -> pd.DataFrame:
    """The pins of a project whose images were split before whole classes were listed, with all that is listed now:
    every image stays where it was, by its hash or an earlier move. For the arguments see `assign`."""
    data, known = _open(images, val_fraction, test_fraction, seed, task), pins_of(pins, seed)
    states = _states(data, known)
    placed = _placed(data, _pinned(known, data))
    placed |= _fill(data, placed, known.split_of)
    listed = {key: placed[key] for key in _listed(data, states)}
    return with_rows(pins, seed, {**listed, **states, **({FRACTIONS: data.fractions} if states else {})})


def place(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but `key` and `seed`."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


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


def _open(images: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int, task: Task) -> Open:
    if task == "regression":
        images = images.assign(label="")
    brings_val, brings_test = (images["split"].eq(name).any() for name in ("val", "test"))
    val, test = 0.0 if brings_val else val_fraction, 0.0 if brings_test else test_fraction
    untrained = _with_a_defect(images) if task == "anomaly" else set()
    cut = images["split"].eq("train") & ((val > 0.0) | images["key"].isin(untrained))
    given = images["split"].mask(cut, None)
    return Open(
        images=images,
        given=given,
        classes=_by_class(images.assign(split=given), task),
        val=val,
        test=test,
        wanted=[name for name, has in (("train", False), ("test", brings_test), ("val", brings_val)) if not has],
        place_of={key: place(key, seed) for key in images["key"].unique()},
        movable=_movable(images.assign(split=given if brings_test else images["split"])),
        untrained=untrained,
    )


def _with_a_defect(images: pd.DataFrame) -> set[str]:
    return set(images.loc[images["label"].notna() & images["label"].ne(GOOD), "key"])


def _without_training(val: float, test: float) -> tuple[float, float]:
    """Both shares of what never trains; all of it is for validation where neither split is cut."""
    return (val / (val + test), test / (val + test)) if val + test else (1.0, 0.0)


def _pinned(known: Pins, data: Open) -> dict[str, str]:
    """The splits that are remembered, without those of units that trained before they were known to have a defect."""
    return {key: split for key, split in known.split_of.items() if split != "train" or key not in data.untrained}


def _places_in(known: Pins, data: Open) -> dict[str, float]:
    """Places inside the split that each pinned unit had, so that a changed share moves as few as a cut by hash does."""
    _, val, _, test = known.fractions.split()
    shares = float(val), float(test)
    trained, untrained = _ends(*shares), _ends(*_without_training(*shares))
    within = {
        key: (untrained if key in data.untrained else trained)[split]
        for key, split in _pinned(known, data).items()
        if key in data.place_of
    }
    return {key: low + (high - low) * data.place_of[key] for key, (low, high) in within.items()}


def _ends(val: float, test: float) -> dict[str, tuple[float, float]]:
    return {"test": (0.0, test), "val": (test, test + val), "train": (test + val, 1.0)}


def _placed(data: Open, pinned: dict[str, str]) -> dict[str, str]:
    return {key: pinned.get(key) or data.by_hash(key) for key in data.place_of}


def _states(data: Open, known: Pins) -> dict[str, State]:
    """`class:NAME` and `groups` -> state; none if nothing is cut. Once by hash, always by hash: units that are not
    listed then may have been seen before."""
    if not data.val and not data.test:
        return {}
    units = data.classes[data.classes["split"].isna()].groupby("label")["key"].nunique()
    sizes = {f"{CLASS}{name}": (count, SMALL) for name, count in units.items()}
    groups = sum(key.startswith(GROUP) for key in data.place_of)
    if groups:
        sizes[GROUPS] = groups, MOST_GROUPS + 1
    return {
        name: "listed" if known.state_of.get(name) != "hash" and count < most else "hash"
        for name, (count, most) in sizes.items()
    }


def _listed(data: Open, states: dict[str, State]) -> set[str]:
    """The open units that the pins list: those of small classes, and groups."""
    small = data.classes["label"].map(lambda name: states.get(f"{CLASS}{name}") == "listed").astype(bool)
    keys = set(data.classes.loc[small, "key"])
    if states.get(GROUPS) == "listed":
        keys |= {key for key in data.place_of if key.startswith(GROUP)}
    return keys - set(data.images.loc[data.given.notna(), "key"])


def _deal(data: Open, states: dict[str, State], pinned: dict[str, str], placed: dict[str, str]) -> dict[str, str]:
    """The split of each listed unit that is new. One with images that are given for training keeps its place where
    Graft makes the test."""
    fixed = data.images["split"].notna() & (data.test > 0)
    new = _listed(data, states) - set(pinned) - set(data.images.loc[fixed, "key"])
    classes = data.classes[data.classes["split"].isna() & data.classes["label"].notna()]
    share = np.array([1 - data.val - data.test, data.val, data.test])
    found = {key: placed[key] for key in new}
    found |= deal(classes, new - data.untrained, placed, data.place_of, share)
    if untrained := new & data.untrained:
        defects = classes[classes["label"] != GOOD]
        found |= deal(defects, untrained, placed, data.place_of, np.array([0.0, *data.untrained_share]))
    return found


def _fill(data: Open, placed: dict[str, str], pinned: dict[str, str]) -> dict[str, str]:
    movable = data.movable - set(pinned)
    if not data.untrained:
        return _fill_small_classes(data.classes, placed, data.place_of, movable, data.wanted)
    is_good, tested = data.classes["label"].eq(GOOD), [split for split in data.wanted if split != "train"]
    moves = _fill_small_classes(data.classes[is_good], placed, data.place_of, movable - data.untrained, data.wanted)
    return moves | _fill_small_classes(data.classes[~is_good], placed | moves, data.place_of, movable, tested)


def _of_images(data: Open, placed: dict[str, str]) -> pd.Series:
    by_key = data.images["key"].map(placed)
    tested = data.images["split"].eq("train") & by_key.eq("test")  # given for training: never tested
    by_key = by_key.mask(tested, "train").mask(tested & data.images["key"].isin(data.untrained), "val")
    return data.given.where(data.given.notna(), by_key).astype(object)


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
    images_of = images["key"].value_counts().to_dict()
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
            donor = _donor(now, free, images_of)
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


def _donor(now: dict[str, str], movable: list[str], images_of: dict[str, int]) -> str | None:
    """The key to move: the smallest from the largest split, that its split can spare or that is in a split that needs
    none."""
    sizes = Counter(now.values())
    spare = [key for key in movable if sizes[now[key]] > 1] or (movable if len(now) < len(SPLITS) else [])
    return max(spare, key=lambda key: (sizes[now[key]], -images_of[key]), default=None)
