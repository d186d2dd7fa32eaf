"""The label loop in an unattended run: new images without a label, labels that people gave by day, and whom to ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import whole_file
from graft.tasks.common.core.paths import Paths

from ..ingest.inbox import UNLABELLED
from .choice import Asked, next_images
from .pool import add_to_pool
from .take_over import take_over_labelled

TABLE = "label/next.csv"
"""The images to ask about, below .graft of the project."""


@dataclass(frozen=True)
class Brought:
    """What changed in the pool.

    Attributes:
        new: images that came without a label.
        labelled: images of the pool that have a label now, and were imported into data/raw.
        refused: files of the inbox that are no usable images.
    """

    new: int = 0
    labelled: int = 0
    refused: int = 0

    def __bool__(self) -> bool:
        return bool(self.new or self.labelled)

    def words(self) -> str:
        refused = f", {self.refused:,} files refused" if self.refused else ""
        return f"{self.new:,} images without a label came, {self.labelled:,} were labelled by people{refused}"


def bring_pool(root: Path, inbox: Path | None) -> Brought:
    """Adds the inbox's images without a label to the pool, and imports those that got one.

    Args:
        root: of the working copy.
        inbox: the folder that people and machines drop files into; its folder `unlabelled` is taken.

    Raises:
        GraftError: the images cannot be copied or imported.
    """
    new = refused = 0
    folder = inbox / UNLABELLED if inbox is not None else None
    if folder is not None and folder.is_dir() and any(file.is_file() for file in folder.rglob("*")):
        added = add_to_pool(root, folder, "inbox")
        new, refused = added.new, len(added.refused)
    labelled = take_over_labelled(root) if (root / "data" / "pool.dvc").is_file() else 0
    return Brought(new, labelled, refused)


def choose_to_ask(root: Path, project: Path, number: int) -> Asked | None:
    """The images whose labels would help most, written to `TABLE` of the project; None if the pool has none left."""
    if not (root / "data" / "pool.dvc").is_file():
        return None
    try:
        asked = next_images(root, number)
    except DataError:
        return None
    file = Paths(project).state / TABLE
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as part:
        asked.table.to_csv(part, index=False)
    return asked


def request(asked: Asked, page: str) -> tuple[str, str]:
    """Title and text of the notification that asks people for labels."""
    count = len(asked.table)
    title = f"{count:,} pictures would help most: give them their labels"
    at_random = int((asked.table["why"] == "random").sum())
    where = page or "`git pull` and `graft label`, in the project"
    return title, (
        f"Of {asked.waiting:,} images without a label, {count - at_random:,} were chosen ({asked.strategy}) and "
        f"{at_random:,} drawn at random. Label them: {where}"
    )
