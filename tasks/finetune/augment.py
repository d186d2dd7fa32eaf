"""What the network sees in training: albumentations, fed by the same decode and resize as everything else."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import albumentations as A
import numpy as np

from ..common.images import EvalTransform, Pixels, decode
from .params import FinetuneParams


class Augment:
    """One image's random view, the same for the same image, epoch and seed; safe under threads.

    The image is first resized as for evaluation, with antialiasing, which the random crop's own resize has not.
    """

    def __init__(self, params: FinetuneParams, transform: EvalTransform) -> None:
        self._params, self._transform = params, transform
        self._thread = threading.local()

    def recipe(self) -> A.Compose:
        """The augmentation as albumentations' own object."""
        params, size = self._params, (self._transform.height, self._transform.width)
        steps: list[A.BasicTransform] = [A.RandomResizedCrop(size, scale=(params.crop_scale, 1.0), interpolation=2)]
        if params.flip:
            steps.append(A.HorizontalFlip(p=0.5))
        if params.colour:
            c = params.colour
            steps.append(
                A.ColorJitter(brightness=(1 - c, 1 + c), contrast=(1 - c, 1 + c), saturation=(1 - c, 1 + c), hue=0)
            )
        return A.Compose(steps)

    def __call__(self, path: Path, image_id: str, epoch: int) -> Pixels:
        """Uint8 of shape (H, W, 3)."""
        if not hasattr(self._thread, "recipe"):
            self._thread.recipe = self.recipe()
        image = decode(path)
        resized = image.resize(self._transform.resized(*image.size), self._transform.resampling)
        key = f"{self._params.seed}:{epoch}:{image_id}".encode()
        self._thread.recipe.set_random_seed(int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big"))
        view: Pixels = self._thread.recipe(image=np.asarray(resized))["image"]
        return view
