"""Heat maps: where an image is anomalous, over the picture."""

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
from graft.tasks.register.serving import ANOMALY, ImageClassifier

from .predict import Answer

Map = npt.NDArray[np.float32]


def heat_picture(classifier: ImageClassifier, picture: Picture, map_HW: Map) -> Pixels:
    """A picture under its heat map, uint8 RGB; if the network sees a part of it, that part.

    Args:
        map_HW: see `ImageClassifier.heat`.
    """
    return overlay(below(classifier, picture), map_HW, classifier.threshold)


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
    """Writes the heat maps of images into a folder, as PNG files under the images' names.

    Args:
        folder: created if it does not exist; earlier maps of the same images are replaced.

    Raises:
        GraftError: the model does not detect anomalies.
    """

    def __init__(self, classifier: ImageClassifier, folder: Path) -> None:
        if classifier.task != ANOMALY:
            raise GraftError(
                "this model has no heat maps",
                got=f"a model for {classifier.task}, and --maps",
                allowed="a model for anomaly",
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
                f"the heat map of {answer.source.name} cannot be written",
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
