"""The images that `predict` takes, as what a packaged model takes: paths and bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from graft.tasks.common.core.errors import DataError

from ..backbones.classify import files_of

Given = str | Path | bytes | Image.Image | npt.NDArray[Any]
"""A file's path, the bytes of a file, a PIL image, or an array of uint8, shape (H, W) or (H, W, C)."""

ONE = (str, Path, bytes, Image.Image, np.ndarray)
"""The types of a single image."""

PNG = {"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"}
"""PIL's modes that a PNG file keeps; a TIFF file keeps the others."""


class Images(Sequence[Path | bytes]):
    """Images by name; one that is in memory is encoded when it is asked for.

    Args:
        images: an image, a folder (all files in it), or several of both.

    Raises:
        DataError: there are none, or an entry is not of a known type.
    """

    def __init__(self, images: Given | Iterable[Given]) -> None:
        several = isinstance(images, Iterable) and not isinstance(images, ONE)
        given: Any = images if several else [images]
        self._items = [item for place, each in enumerate(given) for item in _expanded(each, place)]
        if not self._items:
            raise DataError("there are no images to predict", allowed="paths, folders, bytes, PIL images or arrays")

    @property
    def names(self) -> list[str]:
        """The path of each image; `image 3` for the fourth if it has none."""
        return [str(item) if isinstance(item, Path) else f"image {n}" for n, item in enumerate(self._items)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        return _encoded(self._items[place])


def _expanded(image: Any, place: int) -> list[Any]:
    """A path, or the files of a folder; anything else as it is."""
    if isinstance(image, str | Path):
        return list(files_of([Path(image)]))
    if isinstance(image, ONE):
        return [image]
    raise DataError(
        f"entry {place} of the images is not an image",
        got=type(image).__name__,
        allowed="a path, a folder, the bytes of a file, a PIL image, or an array of uint8 (H, W) or (H, W, C)",
    )


def _encoded(image: Any) -> Path | bytes:
    if isinstance(image, Path | bytes):
        return image
    if isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8:
        image = Image.fromarray(image)  # grey: a model of colour images takes it as such a file
    file = io.BytesIO()
    if isinstance(image, np.ndarray):
        np.save(file, image, allow_pickle=False)
    else:
        image.save(file, "PNG" if image.mode in PNG else "TIFF")
    return file.getvalue()
