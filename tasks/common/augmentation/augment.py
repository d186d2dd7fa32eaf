"""What the network sees in training: albumentations, fed by the same decode and resize as everything else."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import warnings
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np

from ..core.errors import ParamsError
from ..images.decode import Picture, Pixels
from ..images.reading import Reading
from ..images.transform import EvalTransform
from .recipe import CLASS, Recipe

REFLECT = 4
"""OpenCV's number for borders that are mirrored without the outermost row."""

BICUBIC = 2


class Augment:
    """One image's random view, the same for the same image, number and seed; safe under threads.

    The image is first resized as for evaluation, with antialiasing, which the random crop's own resize lacks.

    Args:
        transform: the geometry of evaluation.
        recipe: what is random; see `views_recipe` and `named_recipe`.
        seed: another seed gives other views.
        reading: how files are read.
    """

    def __init__(self, transform: EvalTransform, recipe: A.Compose, seed: int, reading: Reading) -> None:
        self.recipe = recipe
        self._transform, self._seed, self._reading = transform, seed, reading
        self._thread = threading.local()

    def resized(self, path: Path, image_id: str | None) -> Pixels:
        """The whole image in the size that evaluation crops from, uint8; with `border`, with the bars.

        Raises:
            DataError: the file is missing, damaged, or has another md5 than `image_id`.
        """
        with self._reading.file(path, image_id) as picture:
            return self.resize(picture)

    def resize(self, picture: Picture) -> Pixels:
        """`resized`, of a decoded image."""
        return self._transform.whole(*picture)

    def view(self, pixels: Pixels, image_id: str, number: int) -> Pixels:
        """View `number` of an image that is `resized`."""
        if not hasattr(self._thread, "recipe"):
            self._thread.recipe = A.from_dict(A.to_dict(self.recipe))
        key = f"{self._seed}:{number}:{image_id}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big")
        # Not `set_random_seed`: it gives every step the same seed, so that they would all happen, or none.
        self._thread.recipe.set_random_state(np.random.default_rng(seed), random.Random(seed))
        view: Pixels = self._thread.recipe(image=pixels)["image"]
        return view


def views_recipe(transform: EvalTransform, *, crop_scale: float, flip: bool, colour: float) -> A.Compose:
    """Crops, mirrors and colours.

    Args:
        crop_scale: the least share of the area that a random crop keeps.
        flip: whether to mirror at random.
        colour: how far brightness, contrast and saturation vary; of images of one or three channels only.
    """
    return A.Compose([
        *_crop(transform, crop_scale),
        *_mirror(flip),
        *_colours(transform, colour),
    ])  # fmt: skip


def named_recipe(recipe: Recipe, transform: EvalTransform, *, flip: bool) -> A.Compose:
    """The recipe that `finetune.augment` names or lists; the views of all have the network's size.

    Args:
        flip: whether the named recipes flip images at random.

    Raises:
        ParamsError: albumentations does not know a step or an argument, or the result is not an image.
    """
    if not isinstance(recipe, str):
        return _listed(recipe, transform)
    if recipe == "none":
        return A.Compose([_centre(transform)])
    if recipe == "light":
        return views_recipe(transform, crop_scale=0.8, flip=flip, colour=0.0)
    if recipe == "standard":
        return views_recipe(transform, crop_scale=0.6, flip=flip, colour=0.2)
    return _strong(transform, flip)


def described(recipe: A.Compose) -> list[dict[str, Any]]:
    """The steps in albumentations' own serialised form, as plain JSON: what `finetune.augment` takes as a list."""
    steps: list[dict[str, Any]] = json.loads(json.dumps(A.to_dict(recipe)["transform"]["transforms"]))
    return steps


def _crop(transform: EvalTransform, crop_scale: float) -> list[A.BasicTransform]:
    """First a part of the network's proportions, anywhere along the longer side: where no crop of the wanted size and
    shape fits into an elongated image, RandomResizedCrop takes the middle, every time."""
    size = (transform.height, transform.width)
    width, height = transform.resized(transform.width, transform.height)
    part = A.RandomCrop(height, width, pad_if_needed=True, border_mode=REFLECT)
    return [part, A.RandomResizedCrop(size, scale=(crop_scale, 1.0), interpolation=BICUBIC)]


def _centre(transform: EvalTransform) -> A.BasicTransform:
    return A.CenterCrop(transform.height, transform.width, pad_if_needed=True, border_mode=REFLECT)


def _mirror(flip: bool) -> list[A.BasicTransform]:
    return [A.HorizontalFlip(p=0.5)] if flip else []


def _colours(transform: EvalTransform, c: float) -> list[A.BasicTransform]:
    if not c or transform.channels not in (1, 3):
        return []
    return [A.ColorJitter(brightness=(1 - c, 1 + c), contrast=(1 - c, 1 + c), saturation=(1 - c, 1 + c), hue=0)]


def _strong(transform: EvalTransform, flip: bool) -> A.Compose:
    """Turns, smaller crops, more of colour, now and then grey, blur, noise and an erased box (Zhong et al. 2020)."""
    return A.Compose([
        A.Affine(rotate=(-15, 15), shear=(-8, 8), border_mode=REFLECT, p=0.5),
        *_crop(transform, 0.35),
        *_mirror(flip),
        *_colours(transform, 0.4),
        *([A.ToGray(p=0.1)] if transform.channels == 3 else []),
        A.GaussianBlur(blur_limit=(3, 5), p=0.1),
        A.GaussNoise(std_range=(0.02, 0.08), p=0.1),
        A.CoarseDropout(
            num_holes_range=(1, 1), hole_height_range=(0.1, 0.35), hole_width_range=(0.1, 0.35), fill="random", p=0.25
        ),
    ])  # fmt: skip


def _listed(steps: list[dict[str, Any]], transform: EvalTransform) -> A.Compose:
    """The steps, and after them the centre crop of evaluation, which leaves alone what has its size already."""
    whole = {CLASS: "Compose", "p": 1.0, "transforms": [*steps, *described(A.Compose([_centre(transform)]))]}
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            recipe: A.Compose = A.from_dict({"__version__": A.__version__, "transform": whole})
        told = [str(one.message) for one in heard if "not valid" in str(one.message)]
        if told:
            raise ValueError("; ".join(told))
        size = (transform.height + 32, transform.width + 32, transform.channels)
        seen = recipe(image=np.full(size, 128, np.uint8))["image"]
    except Exception as error:  # a step may raise anything for its arguments or an image
        raise _refused(steps, str(error) or type(error).__name__) from error
    if seen.dtype != np.uint8 or seen.shape != (transform.height, transform.width, transform.channels):
        raise _refused(steps, f"an image comes out as {seen.dtype} of shape {seen.shape}")
    return recipe


def _refused(steps: list[dict[str, Any]], why: str) -> ParamsError:
    return ParamsError(
        f"params.yaml: `finetune.augment` is not a recipe: {why.splitlines()[0][:300]}",
        got=", ".join(str(step.get(CLASS)) for step in steps),
        allowed="none | light | standard | strong | a list of albumentations' steps as `albumentations.to_dict` writes "
        "them, from uint8 images to uint8 images with the same channels",
        todo="change `finetune.augment`; normalisation is not part of it",
    )
