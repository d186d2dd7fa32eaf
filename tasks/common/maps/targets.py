"""What a decoder learns to give: the image itself, its mask, or another image that the data name for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..core.cores import cores
from ..core.errors import DataError, ParamsError
from ..core.paths import Paths
from ..data.feature_set import FeatureSet, Rows
from ..data.task import GOOD
from ..images.decode import Pixels
from ..images.masks import read_mask
from ..images.transform import EvalTransform, load

Target = Literal["image", "mask", "target"]

AHEAD = 64
"""Targets that are read at a time."""


@dataclass(frozen=True)
class Targets:
    """The targets of a feature set's images.

    Attributes:
        transform: of the maps; it shows the whole image.
        kind: `mask` and `target` are columns of the manifest.
    """

    pack: FeatureSet
    paths: Paths
    transform: EvalTransform
    kind: Target

    @classmethod
    def of(cls, pack: FeatureSet, paths: Paths, transform: EvalTransform, kind: Target) -> Targets:
        """Raises:
        ParamsError: the maps show only a part of the images.
        DataError: no image has such a target.
        """
        if transform.crop_mode != "squash":
            raise ParamsError(
                "params.yaml: `head.task: reconstruction` needs maps of whole images",
                got=f"features.crop: {transform.crop_mode}",
                allowed="auto | squash",
                todo="set `features.crop: auto`",
            )
        if kind != "image" and not pack.index[kind].notna().any():
            raise DataError(
                f"no image has a {kind}, which `head.target: {kind}` learns",
                allowed=f"a table with a column {kind}, or head.target: image",
                todo="import a table with that column (`graft import TABLE`), or set `head.target: image`",
            )
        return cls(pack, paths, transform, kind)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a target as it is learned."""
        channels = 1 if self.kind == "mask" else self.transform.channels
        return channels, self.transform.height, self.transform.width

    def usable(self, rows: Rows) -> Rows:
        """Those of `rows` whose target is known: without a mask an image must be labelled `GOOD`."""
        if self.kind == "image":
            return rows
        index = self.pack.index.iloc[rows]
        known = index[self.kind].notna() | ((index["label"] == GOOD) if self.kind == "mask" else False)
        return rows[known.to_numpy(np.bool_)]

    def picture(self, row: int) -> Pixels:
        """The image as the network sees it, uint8 (H, W, C)."""
        one = self.pack.index.iloc[row]
        return load(self.paths.raw / one["path"], one["image_id"], self.transform, self.pack.reading)

    def read(self, row: int) -> npt.NDArray[np.uint8]:
        """A target as it is learned, (C, H, W); of a mask 255 where all of a pixel is marked."""
        if self.kind == "image":
            return np.moveaxis(self.picture(row), 2, 0)
        if self.kind == "target":
            path = self.paths.raw / self.pack.index[self.kind].iloc[row]
            return np.moveaxis(load(path, None, self.transform, self.pack.reading), 2, 0)
        marked = self.marked(row)
        if marked is None:
            return np.zeros(self.shape, np.uint8)
        size = self.transform.width, self.transform.height
        grey = Image.fromarray(marked.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        return np.asarray(grey)[None]

    def marked(self, row: int) -> npt.NDArray[np.bool_] | None:
        """Which pixels of the image a mask marks, (h, w); None without a mask."""
        name = self.pack.index["mask"].iloc[row]
        return read_mask(self.paths.raw / name, self.pack.reading.limits) if isinstance(name, str) else None

    def grey(self, row: int) -> Pixels:
        """The image in its own size as grey, uint8 (h, w)."""
        one = self.pack.index.iloc[row]
        with self.pack.reading.file(self.paths.raw / one["path"], one["image_id"]) as picture:
            return np.asarray(picture[0].convert("L"))

    def read_all(self, rows: Rows) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """(place in `rows`, target) of each, in order; several are read at the same time."""
        with ThreadPoolExecutor(cores(), thread_name_prefix="decode") as pool:
            for start in range(0, len(rows), AHEAD):
                yield from enumerate(pool.map(self.read, rows[start : start + AHEAD].tolist()), start)
