"""How evenly classes of few images are split, and whether an image moves when a class grows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graft.tasks.preprocess.pins import PIN_COLUMNS
from graft.tasks.preprocess.splits import assign, place

from .row import Row

SHARE = 0.15
"""Of validation, and of the test."""

CLASSES, IMAGES = 10, 20


def simulate(runs: int, classes: int, images: int, seed: int) -> dict[str, float]:
    """Shares of the classes of all runs, each with another seed: `few` have at most one test image, by `assign`;
    `few_by_hash` would, if only the hash decided; and the share of images that `moved` while the classes doubled."""
    few, few_by_hash, moved = [], [], []
    for run in range(runs):
        whole = _images(classes, 2 * images, seed + run)
        first = whole.groupby("label").head(images)
        no_pins = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in PIN_COLUMNS.items()})
        before, pins = assign(first, SHARE, SHARE, seed + run, no_pins)
        after, _ = assign(whole, SHARE, SHARE, seed + run, pins)
        hashed = first["key"].map(lambda key, seed=seed + run: place(key, seed) < SHARE)
        few += list((before == "test").groupby(first["label"]).sum() <= 1)
        few_by_hash += list(hashed.groupby(first["label"]).sum() <= 1)
        moved.append(float((after[first.index] != before).mean()))
    return {"few": float(np.mean(few)), "few_by_hash": float(np.mean(few_by_hash)), "moved": float(np.mean(moved))}


def long_run(runs: int) -> list[Row]:
    """The rows of the published table; a tenth of the runs, because each has ten classes."""
    runs = max(1, runs // 10)
    rates = simulate(runs, CLASSES, IMAGES, 1)
    return [
        Row("classes of 20 images with at most one test image", 0.0, rates["few"], (0.0, 0.0), runs * CLASSES),
        Row("images that change their split while the classes double", 0.0, rates["moved"], (0.0, 0.0), runs),
    ]


def _images(classes: int, images: int, seed: int) -> pd.DataFrame:
    keys = [f"pixels:{seed}-{number}" for number in range(classes * images)]
    labels = [f"class{number % classes}" for number in range(classes * images)]
    return pd.DataFrame({"key": keys, "label": labels, "pixels": keys, "split": None})
