"""Grad-CAM maps of a few test images. N images, K classes, C channels, H x W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from ..common.backbones.spec import Spec
from ..common.candidates import Candidate
from ..common.core.errors import GraftError
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.torch_threads import one_torch_thread
from ..common.data.feature_set import FeatureSet
from ..common.data.manifest import BETWEEN
from ..common.data.task import Task
from ..common.images.decode import Picture, Pixels, pixels_of
from ..common.images.reading import Reading
from ..common.images.transform import EvalTransform
from .predictions import Predictions

if TYPE_CHECKING:
    from .grad_cam import MappedNetwork

BATCH = 4
"""Images per step: always as many, since another number may round differently."""

NAME = 36
"""Maximum number of characters of the classes above an image."""

FILE = "saliency.png"


@dataclass(frozen=True)
class SaliencyExample:
    """A test image, and which regions support its prediction.

    Attributes:
        caption: the true label and the prediction.
        wrong: whether it is misclassified, or for regression has one of the larger errors.
        pixels: the whole image, uint8 (H, W, C).
        map_HW: Grad-CAM, from 0 to 1; 0 where the network sees nothing.
        seen_HW: whether the network sees this pixel.
    """

    caption: str
    wrong: bool
    pixels: Pixels
    map_HW: npt.NDArray[np.float32]
    seen_HW: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Saliency:
    """The examples, misclassified ones first; or why there are none."""

    task: Task
    examples: tuple[SaliencyExample, ...]
    why_none: str = ""


def explain(predicted: Predictions, candidate: Candidate, pack: FeatureSet, paths: Paths, most: int) -> Saliency:
    """Maps of `most` test images, as `chosen` selects them; of several backbones or sizes the mean of their maps. A
    network without maps is no error; the reason is kept.

    Raises:
        DataError: an image was removed or damaged after it was checked.
    """
    with one_torch_thread():
        try:
            eyes = _eyes(candidate, pack, paths)
        except GraftError as error:
            say(f"evaluate: the report has no Grad-CAM maps: {error}")
            return Saliency(pack.task, (), error.what)
        table = chosen(predicted, pack.task, most)
        if table.empty:
            return Saliency(pack.task, (), "no class was predicted in any test image, correctly")
        transforms = [transform for _, transform in eyes]
        views = [_viewed(paths.raw / row.path, row.image_id, pack.reading, transforms) for row in table.itertuples()]
        crops = zip(*(view.crops for view in views), strict=True)
        maps = [
            _maps(network, list(pixels), list(table["output"]), transform)
            for pixels, (network, transform) in zip(crops, eyes, strict=True)
        ]
    examples = (
        SaliencyExample(caption, wrong, *on_the_whole(view.whole, view.size, of_eyes, transforms))
        for caption, wrong, view, *of_eyes in zip(table["caption"], table["wrong"], views, *maps, strict=True)
    )
    return Saliency(pack.task, tuple(examples))


Eye = tuple["MappedNetwork", EvalTransform]


def _eyes(candidate: Candidate, pack: FeatureSet, paths: Paths) -> list[Eye]:
    """Each network with its part of the head, and its transform.

    Raises:
        NoMaps: a network or the head has none.
    """
    from .grad_cam import part_of, with_maps

    found = []
    for eye, network in zip(pack.eyes, candidate.networks(pack, paths), strict=True):
        transform = Spec.from_dict(eye.fingerprint).transform
        size = (transform.channels, transform.height, transform.width)
        found.append((with_maps(network, part_of(candidate.head, eye.columns), size), transform))
    return found


@dataclass(frozen=True)
class _View:
    """What is kept of a decoded image.

    Attributes:
        size: its (width, height).
        whole: all of it, see `shrunk`.
        crops: what each network sees of it.
    """

    size: tuple[int, int]
    whole: Pixels
    crops: tuple[Pixels, ...]


def _viewed(path: Path, image_id: str, reading: Reading, transforms: Sequence[EvalTransform]) -> _View:
    with reading.file(path, image_id) as picture:
        crops = tuple(transform(*picture) for transform in transforms)
        return _View(picture[0].size, shrunk(picture, transforms[0]), crops)


def shrunk(picture: Picture, transform: EvalTransform) -> Pixels:
    """An image that fits into the network's input with its own proportions, uint8 (H, W, C)."""
    width, height = picture[0].size
    scale = min(transform.width / width, transform.height / height)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return pixels_of([image.resize(size, Image.Resampling.BICUBIC) for image in picture])


def on_the_whole(
    shown: Pixels,
    size: tuple[int, int],
    maps: Sequence[npt.NDArray[np.float32]],
    transforms: Sequence[EvalTransform],
) -> tuple[Pixels, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The whole image; the mean of the networks' maps, each where its crop lies in the image, float32 (H, W); and what
    any network sees, bool (H, W).

    Args:
        shown: the image, see `shrunk`.
        size: its (width, height) before.
        maps: of the crops, one of each network.
        transforms: of each network.
    """
    h, w = shown.shape[:2]
    placed = [_placed(map_hw, transform.area(*size), w, h) for map_hw, transform in zip(maps, transforms)]
    mean_HW = np.mean([map_HW for map_HW, _ in placed], axis=0)
    if len(placed) > 1:
        mean_HW = mean_HW / max(float(mean_HW.max()), 1e-12)
    return shown, mean_HW.astype(np.float32), np.any([seen_HW for _, seen_HW in placed], axis=0)


def _placed(
    map_hw: npt.NDArray[np.float32], area: tuple[float, float, float, float], w: int, h: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A map of the crop `area` (left, top, right, bottom, as shares) in an image of w x h, and what the crop has."""
    left, top, right, bottom = area
    box = round(left * w), round(top * h), round(right * w), round(bottom * h)
    placed, seen = Image.new("F", (w, h)), Image.new("L", (w, h))
    placed.paste(Image.fromarray(map_hw).resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR), box)
    seen.paste(255, box)
    return np.asarray(placed), np.asarray(seen) > 0


def _maps(
    network: MappedNetwork, pixels: Sequence[Pixels], outputs: list[int], transform: EvalTransform
) -> list[npt.NDArray[np.float32]]:
    import torch

    from .grad_cam import grad_cam

    mean, std = (255 * np.array(values, np.float32) for values in (transform.mean, transform.std))
    found: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(pixels), BATCH):
        x_BHWC = (np.stack(pixels[start : start + BATCH]) - mean) / std
        x_BCHW = torch.from_numpy(np.ascontiguousarray(x_BHWC.transpose(0, 3, 1, 2)))
        found += grad_cam(network, x_BCHW, outputs[start : start + BATCH])
    return found


def chosen(predicted: Predictions, task: Task, most: int) -> pd.DataFrame:
    """The most confident errors, as half of `most` images, then correct predictions; more of one kind if the other has
    fewer.

    The correct ones are the most confident of each class in turn, starting with the classes that the errors were
    predicted as. Columns: `path`; `image_id`; `output`, the one to map: of the predicted class, or with several classes
    of the most probable one; `wrong`; `caption`.
    """
    table = _RANKED[task](predicted)
    table = table.assign(**{name: predicted.index[name].to_numpy()[table.index] for name in ("path", "image_id")})
    wrong = table[table["wrong"]].sort_values(["off", "path"], ascending=[False, True])
    right = table[~table["wrong"]].sort_values(["off", "path"])
    worst = wrong.head(most - min(most // 2, len(right)))
    order = {k: place for place, k in enumerate(dict.fromkeys([*worst["output"], *range(len(predicted.classes) or 1)]))}
    turn = right.assign(turn=right.groupby("output").cumcount(), place=right["output"].map(order))
    successes = turn.sort_values(["turn", "place"]).head(most - len(worst))
    return pd.concat([worst, successes])[["path", "image_id", "output", "wrong", "caption"]].reset_index(drop=True)


def _one_class(predicted: Predictions) -> pd.DataFrame:
    """`output`, `wrong`, `caption`, and `off`: how far the prediction is from the truth."""
    predicted_N, true_N = predicted.decided.argmax(axis=1), np.asarray(predicted.target)
    p_N, wrong_N = predicted.calibration.score(predicted.output), predicted_N != true_N
    names = [_short(name) for name in predicted.classes]
    captions = [f"true {names[y]}, predicted {names[k]} ({p:.2f})" for y, k, p in zip(true_N, predicted_N, p_N)]
    return pd.DataFrame(
        {"output": predicted_N, "wrong": wrong_N, "off": np.where(wrong_N, p_N, 1 - p_N), "caption": captions}
    )


def _several_classes(predicted: Predictions) -> pd.DataFrame:
    """The same for the most probable class, without images for which no class was predicted, correctly: nothing
    supports such a prediction."""
    rows, predicted_N = np.arange(len(predicted.output)), predicted.output.argmax(axis=1)
    p_N, true_N = predicted.output[rows, predicted_N], predicted.target[rows, predicted_N] > 0
    found_N = predicted.decided[rows, predicted_N] >= 0.5
    wrong_N = found_N != true_N
    labels = [_short(label.replace(BETWEEN, ", ")) or "no class" for label in predicted.index["label"]]
    captions = [
        f"true {label}\n{'predicted' if found else 'at most'} {_short(predicted.classes[k])} ({p:.2f})"
        for label, k, p, found in zip(labels, predicted_N, p_N, found_N)
    ]
    off_N = np.where(wrong_N, np.abs(p_N - true_N), 1 - p_N)
    table = pd.DataFrame({"output": predicted_N, "wrong": wrong_N, "off": off_N, "caption": captions})
    return table[wrong_N | found_N]


def _number(predicted: Predictions) -> pd.DataFrame:
    """The same for regression: the half with the larger errors counts as wrong."""
    predicted_N, true_N = predicted.output[:, 0], np.asarray(predicted.target, np.float64)
    off_N = np.abs(predicted_N - true_N)
    wrong_N = np.argsort(np.argsort(off_N, kind="stable")) >= (len(off_N) + 1) // 2
    captions = [f"true {y:.4g}, predicted {guess:.4g}" for y, guess in zip(true_N, predicted_N)]
    return pd.DataFrame({"output": 0, "wrong": wrong_N, "off": off_N, "caption": captions})


_RANKED = {"classification": _one_class, "multilabel": _several_classes, "regression": _number}


def _short(text: str) -> str:
    return text if len(text) <= NAME else f"{text[: NAME - 1]}…"
