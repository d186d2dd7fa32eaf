"""What answers with maps show: heat maps, which say where an image is anomalous, or decoded images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.images.decode import Picture, Pixels
from graft.tasks.common.images.reading import content_of
from graft.tasks.common.images.unreadable import UnreadableImage, in_words
from graft.tasks.common.reporting.heat_map import overlay, shown
from graft.tasks.register.serving import RECONSTRUCTION, WITH_MAPS, ImageClassifier

from .predict import Answer

Map = npt.NDArray[np.float32]


def heat_picture(classifier: ImageClassifier, picture: Picture, map_HW: Map) -> Pixels:
    """A picture under its heat map, uint8 RGB; if the network sees a part of it, that part. For reconstruction what was
    decoded, in the size of the picture.

    Args:
        map_HW: see `ImageClassifier.heat`.
    """
    return drawn(classifier, below(classifier, picture), map_HW)


def drawn(classifier: ImageClassifier, pixels_HWC: Pixels, map_HW: Map) -> Pixels:
    """The same from what `below` gives."""
    if classifier.task == RECONSTRUCTION:
        return decoded_picture(map_HW, classifier.threshold, pixels_HWC.shape[:2])
    return overlay(pixels_HWC, map_HW, classifier.threshold)


def decoded_picture(decoded: Map, threshold: float, size: tuple[int, ...]) -> Pixels:
    """A decoded image as uint8 of this size (h, w): grey (h, w), or of three channels RGB. A mask is white where it is
    marked.

    Args:
        decoded: (H, W) of a mask, (H, W, C) of an image; of other than three channels the first is drawn.
        threshold: of a mask.
    """
    bands = [decoded] if decoded.ndim == 2 else list(np.moveaxis(decoded, 2, 0)[: 3 if decoded.shape[2] == 3 else 1])
    large = [
        np.asarray(Image.fromarray(np.ascontiguousarray(band)).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        for band in bands
    ]
    if decoded.ndim == 2:
        return np.where(large[0] >= threshold, 255, 0).astype(np.uint8)
    pixels = np.clip(np.rint(255 * np.stack(large, axis=2)), 0, 255).astype(np.uint8)
    return pixels if len(large) == 3 else pixels[:, :, 0]


def below(classifier: ImageClassifier, picture: Picture) -> Pixels:
    """What a heat map is laid over, uint8 RGB: the picture as far as the network sees it."""
    transform = classifier.eyes.transform
    if transform.crop_mode == "squash" and transform.crop_pct == 1:
        return shown(picture)
    pixels = transform(*picture)
    return shown(
        (Image.fromarray(pixels),) if pixels.shape[2] == 3 else tuple(map(Image.fromarray, np.moveaxis(pixels, 2, 0)))
    )


class HeatMaps:
    """Writes the heat maps of images, or decoded images, into a folder, as PNG files under the images' names.

    Args:
        folder: created if it does not exist; earlier maps of the same images are replaced.

    Raises:
        GraftError: the answers of the model have no maps.
    """

    def __init__(self, classifier: ImageClassifier, folder: Path) -> None:
        if classifier.task not in WITH_MAPS:
            raise GraftError(
                "this model has no maps",
                got=f"a model for {classifier.task}, and --maps",
                allowed="a model for anomaly or reconstruction",
                todo="leave --maps out; --explain shows on what an answer of any model depends",
            )
        self._classifier, self._folder = classifier, folder
        self._written: set[Path] = set()

    def take(self, answer: Answer) -> None:
        """An image that could not be read has none.

        Raises:
            DataError: the map cannot be written, or the image has been removed since it was predicted.
        """
        if answer.map_HW is None:
            return
        target = self._target(Path(answer.source.name))
        reading = self._classifier.eyes.reading
        try:
            with content_of(answer.source.file, reading.limits) as content, reading.image(content) as picture:
                pixels = heat_picture(self._classifier, picture, answer.map_HW)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
        except (OSError, UnreadableImage) as error:
            raise DataError(
                f"the map of {answer.source.name} cannot be written",
                got=f"{target}: {in_words(error)}",
                todo="name another folder with --maps, or leave the image out",
            ) from error

    def _target(self, name: Path) -> Path:
        """`a.jpg` gives a.png; after that, `a.bmp` gives a.bmp.png."""
        image = self._folder.joinpath(*[part for part in name.parts if part not in ("..", "/")])
        target = image.with_suffix(".png")
        if target in self._written:
            target = image.with_name(f"{image.name}.png")
        self._written.add(target)
        return target
