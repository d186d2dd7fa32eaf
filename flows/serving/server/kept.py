"""The folder of `graft serve --log`, as others find it."""

from __future__ import annotations

from pathlib import Path

from graft.tasks.common.core.errors import DataError

MARK, ANSWERS, IMAGES, UNSURE, RANDOM = "graft-log.json", "answers", "images", "unsure", "random"
"""What the folder has; the last two are folders of pictures."""


def kept_at_random(folder: Path) -> Path:
    """The pictures that stand for all that were sent, if this is such a folder; any other source as it is.

    Raises:
        DataError: it has none.
    """
    if not (folder / MARK).is_file():
        return folder
    pictures = folder / IMAGES / RANDOM
    if not any(pictures.glob("*/*")):
        raise DataError(
            f"{folder} has no pictures that were kept at random",
            got="the log of a server without `--keep random:SHARE`",
            allowed="a random share: pictures on which a model is unsure always differ from the others",
            todo=f"graft serve --log {folder} --keep random:0.01",
        )
    return pictures
