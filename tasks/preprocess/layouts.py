"""The names by which data/raw says of what form it is. Known without pandas, whose import takes half a second."""

from __future__ import annotations

from pathlib import PurePosixPath

TABLE = "labels.csv"

TARGET = "target"
"""What the column may be called as well, where labels are numbers."""

ONE_CLASS = "label:"
"""How the name of a column of zeros and ones begins, where an image may have several classes; the class follows."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What people call a split -> what Graft calls it."""


def hidden(file: str) -> bool:
    """Whether a file is one that systems leave about (.DS_Store, Thumbs.db, a dot folder)."""
    parts = PurePosixPath(file).parts
    return any(part.startswith(".") for part in parts) or parts[-1].lower() in ("thumbs.db", "desktop.ini")


def split_folders(tops: set[str]) -> bool:
    """Whether the folders at the top of data/raw are splits, so that the classes lie below them."""
    return bool(tops) and all(top.lower() in SPLIT_NAMES for top in tops)
