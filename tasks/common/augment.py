"""What the network sees in training: albumentations, fed by the same decode and resize as everything else."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import albumentations as A

from .images import EvalTransform, Pixels, decode_bands, pixels_of, still_readable


class Augment:
    """One image's random view, the same for the same image, number and seed; safe under threads.

    The image is first resized as for evaluation, with antialiasing, which the random crop's own resize has not.

    Args:
        transform: the geometry of evaluation.
        crop_scale: the least share of the area that a random crop keeps.
        flip: whether to mirror at random.
        colour: how far brightness, contrast and saturation vary; of images of one or three channels only.
        seed: another seed gives other views.
    """

    def __init__(self, transform: EvalTransform, *, crop_scale: float, flip: bool, colour: float, seed: int) -> None:
        self._transform = transform
        self._crop_scale, self._flip, self._colour, self._seed = crop_scale, flip, colour, seed
        self._thread = threading.local()

    def recipe(self) -> A.Compose:
        """The augmentation as albumentations' own object."""
        size, c = (self._transform.height, self._transform.width), self._colour
        steps: list[A.BasicTransform] = [A.RandomResizedCrop(size, scale=(self._crop_scale, 1.0), interpolation=2)]
        if self._flip:
            steps.append(A.HorizontalFlip(p=0.5))
        if c and self._transform.channels in (1, 3):
            steps.append(
                A.ColorJitter(brightness=(1 - c, 1 + c), contrast=(1 - c, 1 + c), saturation=(1 - c, 1 + c), hue=0)
            )
        return A.Compose(steps)

    def __call__(self, path: Path, image_id: str, number: int) -> Pixels:
        """View `number` of an image (in training, its epoch): uint8 of shape (H, W, C).

        Raises:
            DataError: the file is gone or damaged.
        """
        if not hasattr(self._thread, "recipe"):
            self._thread.recipe = self.recipe()
        with still_readable(path):
            picture = decode_bands(path, self._transform.channels)
        size = self._transform.resized(*picture[0].size)
        resized = pixels_of([image.resize(size, self._transform.resampling) for image in picture])
        key = f"{self._seed}:{number}:{image_id}".encode()
        self._thread.recipe.set_random_seed(int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big"))
        view: Pixels = self._thread.recipe(image=resized)["image"]
        return view
