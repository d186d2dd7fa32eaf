"""Splits that never move: a function of the pixels' (or the group's) hash and a seed.

A class of few images may get none in a split by its hashes. Then one is moved there, and the move is written to the
pins, a small table that is versioned with the repository: without a memory no rule can both fill every split of a
small class and keep every image in its split when the class grows (of four images two share a split, and with any
third they would leave one of the three empty).
"""

from __future__ import annotations

import hashlib

import pandas as pd

from ..common.manifest import SPLITS

PIN_COLUMNS = ["seed", "key", "split"]


def place(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but `key` and `seed`."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def assign(
    images: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int, pins: pd.DataFrame
) -> tuple[pd.Series, pd.DataFrame]:
    """A split for every image.

    Args:
        images: columns `key` (images with the same key stay together), `label`, `split` (given, or null).
        val_fraction, test_fraction: shares by which hashes are cut; where the data bring a test split of their own,
            only validation is cut.
        pins: moves made earlier, columns `seed`, `key`, `split`.

    Returns:
        The split of each image, and the pins with new moves appended.
    """
    brings_val, brings_test = (images["split"].eq(name).any() for name in ("val", "test"))
    open_test = 0.0 if brings_test else test_fraction
    open_val = 0.0 if brings_val else val_fraction
    pinned = dict(pins.loc[pins["seed"] == seed, ["key", "split"]].itertuples(index=False))

    fixed: dict[str, str] = {}
    chosen: dict[str, str] = {}
    for key, given in images.groupby("key", sort=True)["split"]:
        known = [name for name in SPLITS if (given == name).any()]
        if known and not (known == ["train"] and open_val > 0):
            fixed[key] = known[-1]
        else:
            chosen[key] = pinned.get(key) or _by_hash(key, seed, open_val, 0.0 if known else open_test)
    moves = _fill_small_classes(images, fixed, chosen, pinned, seed)
    appended = pd.DataFrame([(seed, key, split) for key, split in moves.items()], columns=PIN_COLUMNS)
    all_pins = pd.concat([pins, appended], ignore_index=True) if len(appended) else pins
    return images["key"].map({**chosen, **fixed}), all_pins


def _by_hash(key: str, seed: int, val_fraction: float, test_fraction: float) -> str:
    at = place(key, seed)
    return "test" if at < test_fraction else "val" if at < test_fraction + val_fraction else "train"


def _fill_small_classes(
    images: pd.DataFrame, fixed: dict[str, str], chosen: dict[str, str], pinned: dict[str, str], seed: int
) -> dict[str, str]:
    """Moves keys of `chosen` so that each class has one in each split, as far as its keys go: a single one trains, of
    two one is for the test. Returns what must be remembered: the moves, and all of a class that is not complete yet.
    """
    memory: dict[str, str] = {}
    for _, keys in images.groupby("label", sort=True)["key"]:
        members = sorted(set(keys), key=lambda key: place(key, seed))
        for wanted in ("train", "test", "val")[: len(members)]:
            now = {key: fixed.get(key) or chosen[key] for key in members}
            if wanted in now.values():
                continue
            donor = _donor(now, [key for key in members if key in chosen and key not in pinned and key not in memory])
            if donor is not None:
                memory[donor] = chosen[donor] = wanted
        if len(members) < len(SPLITS):
            memory |= {key: chosen[key] for key in members if key in chosen and key not in pinned}
    return memory


def _donor(now: dict[str, str], movable: list[str]) -> str | None:
    """The key to move: of the largest split, that its own split can do without, or that stands where none is needed."""
    sizes = {name: list(now.values()).count(name) for name in SPLITS}
    spare = [key for key in movable if sizes[now[key]] > 1] or (movable if len(now) < len(SPLITS) else [])
    return max(spare, key=lambda key: sizes[now[key]], default=None)
