"""The layouts that a folder of images may have, recognised by names alone. Known without pandas, whose import takes
half a second. Import, inbox, preprocess and status judge a folder with the functions of this module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..common.core.errors import DataError
from ..common.core.words import listed
from ..common.data.task import Task
from .class_names import class_name

TABLE = "labels.csv"

TARGET = "target"
"""Another name for the column `label`, where labels are numbers; for the task `reconstruction` the column of the image
that a decoder learns to give."""

MASK = "mask"
"""Column of the image of an image's defect, where the task is one of `WITH_MASKS`."""

MASKS = "ground_truth"
"""The folder of masks in the layout of MVTec AD: `ground_truth/KIND/NAME_mask.png`."""

WITH_MASKS: tuple[Task, ...] = ("anomaly", "reconstruction")
"""The tasks that use masks."""

FURTHER = (MASK, TARGET)
"""Columns that name another file beside the image."""

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

SYSTEM_FOLDERS = (
    "#recycle", "$recycle.bin", "@eadir", "lost+found", "system volume information", "__macosx", "@recycle",
    "#snapshot", "found.000",
)  # fmt: skip
"""Folders that file systems, network storage and archivers create: deleted files, thumbnails, fragments."""

NOT_IMAGES = frozenset(
    (
        "7z", "bz2", "cfg", "conf", "csv", "db", "doc", "docx", "gz", "h5", "hdf5", "htm", "html", "ini", "ipynb", "js",
        "json", "jsonl", "lock", "log", "mat", "md", "names", "ods", "parquet", "pdf", "pickle", "pkl", "ppt", "pptx",
        "py", "rar", "rst", "rtf", "sh", "sqlite", "tar", "tex", "tfrecord", "tgz", "toml", "tsv", "txt", "xls", "xlsx",
        "xml", "xz", "yaml", "yml", "zip",
    )
)  # fmt: skip
"""Suffixes of files that are never images: notes, tables, annotations, archives."""

KNOWN = "one folder per class; train/, val/, test/ with one folder per class; or a table of path and label"
"""The layouts, for messages."""

Form = Literal["classes", "splits", "mixed", "flat"]


def hidden(file: str) -> bool:
    """Whether a system left a file or a folder behind (.DS_Store, Thumbs.db, a dot folder, a recycle bin)."""
    parts = file.split("/")
    return parts[-1].lower() in SYSTEM_FILES or any(
        part.startswith(".") or part.lower() in SYSTEM_FOLDERS for part in parts
    )


def may_be_image(file: str) -> bool:
    """Whether the suffix of a name does not say that it is something else."""
    name = file.rpartition("/")[2]
    return name.rpartition(".")[2].lower() not in NOT_IMAGES or "." not in name


@dataclass(frozen=True)
class Layout:
    """Where the names of images below a folder state their class and their split.

    Attributes:
        form: `classes`, `splits`, `mixed` (folders of splits among others) or `flat` (no folders of images).
        wrapper: the folder that holds everything, with slashes; empty if there is none.
        label_at, split_at: the part of the path that is the class, or the split.
        tops: the folders that decided.
        alike: folders that several classes have in common, as if the classes were below.
        masks: the folder of masks of defects; empty if there is none.
    """

    form: Form
    wrapper: str = ""
    label_at: int = 0
    split_at: int | None = None
    tops: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    masks: str = ""

    def is_mask(self, file: str) -> bool:
        """Whether a file is in the folder of masks."""
        return bool(self.masks) and file.startswith(f"{self.masks}/")

    def label(self, file: str) -> str | None:
        """The class of an image; null if it is in no folder of a class."""
        parts = self._parts(file)
        return class_name(parts[self.label_at]) or None if parts else None

    def split(self, file: str) -> str | None:
        """The split of an image; null if its folders give none."""
        parts = self._parts(file)
        if self.split_at is None or not parts:
            return None
        return SPLIT_NAMES.get(parts[self.split_at].lower())

    def place(self, file: str) -> str | None:
        """The path without wrapper, with a tidy name of the class, the split first; null if it is in no class. That of
        a mask begins with `MASKS`."""
        if self.is_mask(file):
            return "/".join([MASKS, *self._place_of_mask(file.removeprefix(f"{self.masks}/").split("/"))])
        parts, label = self._parts(file), self.label(file)
        if not label:
            return None
        if self.split_at is None:
            return "/".join([label, *parts[self.label_at + 1 :]])
        return "/".join([parts[self.split_at], label, *parts[max(self.label_at, self.split_at) + 1 :]])

    def _place_of_mask(self, parts: list[str]) -> list[str]:
        kind = int(self.form == "splits" and len(parts) > 2 and _is_split(parts[0]))
        return [*parts[:kind], class_name(parts[kind]), *parts[kind + 1 :]]

    def _parts(self, file: str) -> list[str]:
        """The parts of a path below a class; none for other paths."""
        if self.is_mask(file):
            return []
        if self.form not in ("classes", "splits") or not file.startswith(self.wrapper and f"{self.wrapper}/"):
            return []
        parts = file.split("/")
        return parts if len(parts) > max(self.label_at, self.split_at or 0) + 1 else []


def layout_of(files: Iterable[str], *, classes: Collection[str] = (), unwrap: bool = True) -> Layout:
    """The layout of the files below a folder, named relative to it, with slashes.

    Folders without an image count for nothing. One folder around all others is a wrapper, which is looked through. A
    folder `MASKS` beside others, with images only in its own folders, holds masks.

    Args:
        classes: known classes; a folder named after one is neither a wrapper nor a split.
        unwrap: whether there may be a wrapper at all.
    """
    images = [file.split("/") for file in files if may_be_image(file) and not hidden(file)]
    depth, wrapper, known = 0, list[str](), {*map(class_name, classes)}
    tree = _tree(images, 0)
    while unwrap and _is_wrapper(tree, known):
        wrapper.append(next(iter(tree)))
        depth += 1
        images = [parts for parts in images if len(parts) > depth and parts[depth - 1] == wrapper[-1]]
        tree = _tree(images, depth)
    masks = _masks_among(tree, known)
    layout = _judge({top: below for top, below in tree.items() if top != masks}, depth, "/".join(wrapper), known)
    return replace(layout, masks="/".join([*wrapper, masks])) if masks else layout


def _masks_among(tree: dict[str, set[str]], classes: Collection[str]) -> str:
    """The folder of masks among the highest ones; alone it is one only if it joins images that are there already."""
    named = [top for top, below in tree.items() if top.lower() == MASKS and "" not in below and top not in classes]
    return named[0] if named and (len(tree) > 1 or classes) else ""


def refuse_masks(folder: Path, layout: Layout, task: Task) -> None:
    """Raises:
    DataError: the folder has masks of defects, and the task uses none.
    """
    if layout.masks and task not in WITH_MASKS:
        raise DataError(
            f"{folder} has masks of defects, which `head.task: {task}` does not use",
            got=f"{layout.masks}/ beside {', '.join(layout.tops[:5])}: the layout of MVTec AD",
            allowed="with `head.task: anomaly`: good images, and defects with their masks",
            todo="set `head.task: anomaly` in params.yaml; or, to classify the kinds of defect, move "
            f"{layout.masks}/ away",
        )


def refuse_mixed(folder: Path, layout: Layout) -> None:
    """Raises:
    DataError: some folders are splits and others are not, so no rule says what a class is.
    """
    if layout.form == "mixed" and any(name.rpartition("/")[2].lower() == MASKS for name in layout.tops):
        raise DataError(
            f"{folder / layout.wrapper} has several data sets in the layout of MVTec AD",
            got=listed(sorted({name.partition("/")[0] for name in layout.tops})),
            allowed="one of them per project",
            todo="import one of its folders",
        )
    if layout.form == "mixed":
        raise DataError(
            f"{folder / layout.wrapper} mixes split folders with others",
            got=", ".join(layout.tops[:8]) + (", ..." if len(layout.tops) > 8 else ""),
            allowed="only train/, val/, test/, or only folders of classes",
            todo="move the other folders away, or rename the class that has the name of a split",
        )


def _tree(images: list[list[str]], depth: int) -> dict[str, set[str]]:
    """Folder at this depth -> the folders with images in it; the empty name stands for images of the folder itself."""
    tree: dict[str, set[str]] = defaultdict(set)
    for parts in images:
        if len(parts) > depth + 1:
            tree[parts[depth]].add(parts[depth + 1] if len(parts) > depth + 2 else "")
    return dict(tree)


def _is_wrapper(tree: dict[str, set[str]], classes: Collection[str]) -> bool:
    """Whether the only folder of images holds folders of classes rather than being a class.

    Images beside several folders in it are strays; but where there are classes already, it may be another one, with
    folders of its own. The only folder of a split is no wrapper.
    """
    if len(tree) != 1:
        return False
    ((top, below),) = tree.items()
    if _is_split(top) or class_name(top) in classes or (classes and top.lower() == MASKS):
        return False
    return "" not in below or (len(below) > 2 and not classes)


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_NAMES


def _judge(tree: dict[str, set[str]], depth: int, wrapper: str, classes: Collection[str]) -> Layout:
    tops = tuple(sorted(tree))
    splits = [top for top in tops if _is_split(top) and class_name(top) not in classes]
    if not tops:
        return Layout("flat", wrapper)
    if len(splits) == len(tops):
        return Layout("splits", wrapper, depth + 1, depth, tops)
    if any(tree[top] != {""} for top in splits):  # else a class that happens to have the name of a split
        return Layout("mixed", wrapper, tops=tops)
    if splits:
        return Layout("classes", wrapper, depth, None, tops)
    return _judge_below(tree, depth, wrapper, tops)


def _judge_below(tree: dict[str, set[str]], depth: int, wrapper: str, tops: tuple[str, ...]) -> Layout:
    """Folders of classes, which may have the splits in them."""
    names = {SPLIT_NAMES[name.lower()] for below in tree.values() for name in below if _is_split(name)}
    if len(names) > 1:
        if all(map(_is_split, set().union(*tree.values()))):
            return Layout("splits", wrapper, depth, depth + 1, tops)
        strays = [f"{top}/{name}" for top in tops for name in sorted(tree[top]) if name]
        return Layout("mixed", wrapper, tops=tuple(strays))
    shared = set.intersection(*tree.values()) if len(tree) > 1 else set()
    alike = tuple(sorted(shared)) if len(shared) > 1 and "" not in shared else ()
    return Layout("classes", wrapper, depth, None, tops, alike)
