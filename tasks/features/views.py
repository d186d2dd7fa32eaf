"""What is computed: every image, and augmented views of each training image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.feature_cache.segments import VIEWS, Ids, ids_of, view_key
from ..common.images.reading import Reading
from ..common.images.transform import EvalTransform
from .params import FeaturesParams

if TYPE_CHECKING:
    from ..common.augmentation.augment import Augment


@dataclass(frozen=True)
class Items:
    """The images, then the views; M items in all.

    Attributes:
        ids: (M,) the key in the cache: the image's md5, or a hash of it, the view's number and the augmentation.
        rows: (M,) the row in the manifest.
        numbers: (M,) 0 for the image itself, else the view's number.
    """

    ids: Ids
    rows: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def images(self) -> int:
        return int(np.count_nonzero(self.numbers == 0))

    @property
    def views(self) -> int:
        return len(self) - self.images


def list_items(manifest: pd.DataFrame, params: FeaturesParams) -> Items:
    """All images in the manifest's order; then view 1 of all training images, view 2, and so on."""
    image_ids = list(manifest["image_id"])
    train = np.flatnonzero(manifest["split"] == "train")
    numbers = np.repeat(np.arange(1, params.views + 1), len(train))
    rows = np.tile(train, params.views)
    recipe = json.dumps([VIEWS, version("albumentations"), _recipe(params)], sort_keys=True)
    keys = [view_key(image_ids[row], int(number), recipe) for row, number in zip(rows, numbers)]
    return Items(
        ids_of(image_ids + keys),
        np.concatenate([np.arange(len(manifest)), rows]),
        np.concatenate([np.zeros(len(manifest), np.int64), numbers]),
    )


def augmentation(params: FeaturesParams, transform: EvalTransform, reading: Reading) -> Augment:
    from ..common.augmentation.augment import Augment, views_recipe

    return Augment(
        transform,
        views_recipe(transform, crop_scale=params.view_crop_scale, flip=params.view_flip, colour=params.view_colour),
        params.view_seed,
        reading,
    )


def _recipe(params: FeaturesParams) -> dict[str, float | bool | int]:
    return {
        "crop_scale": params.view_crop_scale,
        "flip": params.view_flip,
        "colour": params.view_colour,
        "seed": params.view_seed,
    }
