"""Which regions of an image an answer depends on, for any packaged model: what its probability loses when they are
covered (occlusion sensitivity, Zeiler & Fergus 2014, section 4.2). Needs no gradients, and so no torch.

H x W pixels of the network's input, G x G positions of the cover, E backbones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images.decode import Pixels
from graft.tasks.common.images.reading import content_of
from graft.tasks.common.images.unreadable import UnreadableImage, in_words
from graft.tasks.evaluate.saliency_plot import overlaid
from graft.tasks.register.serving import WITH_MAPS, ImageClassifier

from .heat_maps import heat_picture
from .predict import Answer

GRID = 9
"""Positions of the cover along each side."""

SHARE = 0.25
"""Of a side that the cover hides. Smaller covers find single features, larger ones whole parts."""

BATCH = 9

Map = npt.NDArray[np.float32]


class Explainer:
    """Writes the maps of images into a folder, under the images' names.

    Args:
        folder: created if it does not exist; earlier maps of the same images are replaced.
    """

    def __init__(self, classifier: ImageClassifier, folder: Path) -> None:
        self._classifier, self._folder = classifier, folder

    def take(self, answer: Answer) -> None:
        """An image that could not be read has none.

        Raises:
            DataError: the map cannot be written, or the image has gone since it was predicted.
        """
        if answer.error:
            return
        parts = [part for part in Path(answer.source.name).parts if part not in ("..", "/")]
        target = self._folder.joinpath(*parts).with_suffix(".png")
        try:
            with content_of(answer.source.file, self._classifier.eyes.reading.limits) as content:
                map_ = saliency(self._classifier, content)
            target.parent.mkdir(parents=True, exist_ok=True)
            map_.save(target)
        except (OSError, UnreadableImage) as error:
            raise DataError(
                f"{answer.source.name} cannot be explained",
                got=f"{target}: {in_words(error)}",
                todo="name another folder with --explain, or leave the image out",
            ) from error


def saliency(classifier: ImageClassifier, content: bytes) -> Image.Image:
    """The map over what the network sees of an image: the brighter, the more the answer depends on it. Of the task
    anomaly the heat map, which is what the answer is made of; of reconstruction the decoded image.

    Args:
        content: of a file.

    Raises:
        UnreadableImage: it is not an image.
    """
    with classifier.eyes.reading.image(content) as picture:
        pixels_E = classifier.eyes.pixels(picture)
        if classifier.task in WITH_MAPS:
            map_HW = classifier.heat(classifier.eyes.look([pixels[None] for pixels in pixels_E]))[0]
            return Image.fromarray(heat_picture(classifier, picture, map_HW))
    map_HW = occlusion_map(classifier, pixels_E)
    seen = pixels_E[0] if pixels_E[0].shape[2] == 3 else np.repeat(pixels_E[0][..., :1], 3, axis=2)
    return Image.fromarray(overlaid(seen, map_HW))


def occlusion_map(classifier: ImageClassifier, pixels_E: Sequence[Pixels]) -> Map:
    """(H, W) of the first backbone, from 0 to 1; 0 everywhere if the answer depends on no single region.

    Args:
        pixels_E: for each backbone uint8 (H, W, C).
    """
    whole = classifier.answers(classifier.eyes.look([pixels[None] for pixels in pixels_E]))[0]
    loss_G = np.array([_loss(whole, one) for one in _covered_answers(classifier, pixels_E)])
    height, width = pixels_E[0].shape[:2]
    total_HW, count_HW = np.zeros((height, width)), np.zeros((height, width))
    for place, loss in enumerate(np.maximum(loss_G, 0)):
        rows, columns = _cover(place, height, width)
        total_HW[rows, columns] += loss
        count_HW[rows, columns] += 1
    map_HW = total_HW / np.maximum(count_HW, 1)
    highest = float(map_HW.max())
    return (map_HW / highest if highest > 1e-9 else np.zeros_like(map_HW)).astype(np.float32)


def _covered_answers(classifier: ImageClassifier, pixels_E: Sequence[Pixels]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for start in range(0, GRID * GRID, BATCH):
        batch_E = [
            np.stack([_with_cover(pixels, place) for place in range(start, start + BATCH)]) for pixels in pixels_E
        ]
        answers += classifier.answers(classifier.eyes.look(batch_E))
    return answers


def _with_cover(pixels: Pixels, place: int) -> Pixels:
    covered = pixels.copy()
    rows, columns = _cover(place, *pixels.shape[:2])
    covered[rows, columns] = pixels.mean(axis=(0, 1)).astype(np.uint8)
    return covered


def _cover(place: int, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns that the cover hides; the first and the last lie at the edges."""
    return _span(place // GRID, height), _span(place % GRID, width)


def _span(step: int, side: int) -> slice:
    size = max(1, round(side * SHARE))
    start = round(step * (side - size) / (GRID - 1))
    return slice(start, start + size)


def _loss(whole: dict[str, Any], covered: dict[str, Any]) -> float:
    """By how much the answer changes: the probability of the label, of the most probable of several, or the number."""
    if "value" in whole:
        return abs(float(whole["value"]) - float(covered["value"]))
    label = whole["label"] if "label" in whole else max(whole["probabilities"], key=whole["probabilities"].get)
    return float(whole["probabilities"][label] - covered["probabilities"][label])
