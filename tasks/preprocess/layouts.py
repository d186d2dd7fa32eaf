"""The names that tell which layout data/raw has. Known without pandas, whose import takes half a second."""

from __future__ import annotations

from pathlib import PurePosixPath

TABLE = "labels.csv"

TARGET = "target"
"""Another name for the column `label`, where labels are numbers."""

ONE_CLASS = "label:"
"""Prefix of a column of zeros and ones, where an image may have several classes; the class follows."""

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
"""Common names of a split -> Graft's name."""

SYSTEM_FILES = ("thumbs.db", "desktop.ini")

SYSTEM_FOLDERS = ("#recycle", "$recycle.bin", "@eadir", "lost+found", "system volume information", "__macosx")
"""Folders that file systems, network storage and archivers create: deleted files, thumbnails, fragments."""


def hidden(file: str) -> bool:
    """Whether a system left a file or a folder behind (.DS_Store, Thumbs.db, a dot folder, a recycle bin)."""
    parts = PurePosixPath(file).parts
    return parts[-1].lower() in SYSTEM_FILES or any(
        part.startswith(".") or part.lower() in SYSTEM_FOLDERS for part in parts
    )


def split_folders(tops: set[str]) -> bool:
    """Whether the folders at the top of data/raw are splits, so that the classes lie below them."""
    return bool(tops) and all(top.lower() in SPLIT_NAMES for top in tops)
