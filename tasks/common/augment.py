"""TEMPORARY stand-in of the agreed interface."""

from __future__ import annotations
import hashlib, threading, json
from pathlib import Path
from typing import Any, Literal
import albumentations as A
from .images import EvalTransform, Pixels, decode_bands, pixels_of, still_readable

Recipe = Literal["none", "light", "standard", "strong"] | list[dict[str, Any]]


class Augment:
    def __init__(self, transform: EvalTransform, recipe: A.Compose, seed: int) -> None:
        self._transform, self.recipe, self._seed = transform, recipe, seed
        self._thread = threading.local()

    def resized(self, path: Path) -> Pixels:
        with still_readable(path):
            picture = decode_bands(path, self._transform.channels)
        size = self._transform.resized(*picture[0].size)
        return pixels_of([image.resize(size, self._transform.resampling) for image in picture])

    def view(self, pixels: Pixels, image_id: str, number: int) -> Pixels:
        if not hasattr(self._thread, "recipe"):
            self._thread.recipe = A.from_dict(A.to_dict(self.recipe))
        key = f"{self._seed}:{number}:{image_id}".encode()
        self._thread.recipe.set_random_seed(int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big"))
        return self._thread.recipe(image=pixels)["image"]

    def __call__(self, path, image_id, number):
        return self.view(self.resized(path), image_id, number)


def views_recipe(transform, *, crop_scale, flip, colour):
    size, c = (transform.height, transform.width), colour
    steps = [A.RandomResizedCrop(size, scale=(crop_scale, 1.0), interpolation=2)]
    if flip:
        steps.append(A.HorizontalFlip(p=0.5))
    if c and transform.channels in (1, 3):
        steps.append(
            A.ColorJitter(brightness=(1 - c, 1 + c), contrast=(1 - c, 1 + c), saturation=(1 - c, 1 + c), hue=0)
        )
    return A.Compose(steps)


def named_recipe(recipe, transform, *, flip):
    return views_recipe(
        transform, crop_scale={"light": 0.8, "standard": 0.6, "strong": 0.35}[recipe], flip=flip, colour=0.2
    )


def described(recipe):
    return json.loads(json.dumps(A.to_dict(recipe)["transform"]["transforms"]))
