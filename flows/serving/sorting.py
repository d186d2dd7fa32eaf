"""`graft predict --sort-into`: copies of the images, or links to them, in one folder per predicted class."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import quote

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.images.shards import opening
from graft.tasks.register.serving import ImageClassifier

from .columns import verdict
from .predict import Answer

NOT_SURE, NONE = "_not sure", "_none"
"""The folders of images with an uncertain answer, and of those with none of several labels."""

FORBIDDEN = '/\\:*?"<>|\0'
"""In names of folders, on one system or another."""


def sorter_for(classifier: ImageClassifier, folder: Path | None, *, link: bool) -> Sorter | None:
    """None without a folder.

    Raises:
        GraftError: the folder has files, the model predicts numbers, or there is no folder for the links.
    """
    if folder is None:
        if link:
            raise GraftError("--link says how --sort-into sorts", got="no --sort-into", todo="add --sort-into FOLDER")
        return None
    if classifier.task in ("regression", "reconstruction"):
        raise GraftError(
            "images cannot be sorted by a number",
            got=f"a model for {classifier.task}, and --sort-into",
            allowed="a model with classes, or one that detects anomalies",
            todo="write a table with --output, which has the numbers",
        )
    return Sorter(folder, link=link)


class Sorter:
    """Args:
    folder: new, or empty.
    link: symbolic links instead of copies.

    Raises:
        GraftError: the folder has files.
    """

    def __init__(self, folder: Path, *, link: bool) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise GraftError(
                f"images cannot be sorted into {folder}",
                got="a folder with files in it" if folder.is_dir() else "a file",
                allowed="a new or an empty folder",
                todo="name another folder with --sort-into",
            )
        self._folder, self._link = folder, link
        self._taken: dict[Path, int] = {}

    def take(self, answer: Answer) -> None:
        """An image with several labels goes into the folder of each; one that could not be read is left out."""
        for name in [] if answer.error else _folders(answer):
            target = self._free(self._folder / name / answer.source.file.name)
            try:
                self._put(answer.source.file, target)
            except OSError as error:
                raise GraftError(
                    f"{target} cannot be written",
                    got=error.strerror or str(error),
                    todo="free space, or name another folder with --sort-into; what was sorted before stays",
                ) from error

    def _put(self, file: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self._link:
            with opening(file) as (source, _), target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        elif file.is_file():
            target.symlink_to(file.resolve())
        else:
            raise GraftError(
                "an image in a shard has no file that a link could lead to",
                got=f"{file} with --link",
                todo="leave --link out, which copies the images",
            )

    def _free(self, target: Path) -> Path:
        """The name, with a number if it is taken: files of several folders may have the same."""
        free = target
        while os.path.lexists(free):
            self._taken[target] = self._taken.get(target, 1) + 1
            free = target.with_name(f"{target.stem}-{self._taken[target]}{target.suffix}")
        return free


def _folders(answer: Answer) -> list[str]:
    found = answer.found
    if found.get("abstain"):
        return [NOT_SURE]
    if "anomalous" in found:
        return [verdict(found)]
    labels = found["labels"] if "labels" in found else [found["label"]]
    return [folder_of(label) for label in labels] or [NONE]


def folder_of(label: str) -> str:
    """The name of a class as that of a folder: what no folder's name may have is written as in a URL."""
    name = "".join(f"%{ord(mark):02X}" if mark in FORBIDDEN else mark for mark in label)
    return name if name.strip(". ") else quote(name, safe="").replace(".", "%2E") or "%00"
