"""The packaged model: from images as bytes or base64 to label, score and probabilities (or several labels and their
probabilities, or a number with an interval), whether the model abstains, and how typical the image is; or whether it is
anomalous, and where.

A string is base64 and never the name of a file, since clients of a server send strings. Callers in Python may also pass
`Path` objects.

The package has a copy of this module and of the few that it imports, so that a model predicts with the code that it was
tested with. It needs OpenVINO, Pillow, NumPy and safetensors, but neither torch nor timm nor MLflow.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.heads.anomaly import AnomalyHead
from ..common.heads.calibration import Calibration
from ..common.heads.decoder import DecoderHead
from ..common.heads.load import load_head
from ..common.heads.typicality import Typicality
from ..common.images.decode import Picture
from ..common.images.reading import content_of
from .packaged_eyes import PackagedEyes

_PREDICTS = {
    "classification": ("label", "score", "probabilities"),
    "multilabel": ("labels", "probabilities"),
    "regression": ("value",),
    "anomaly": ("score", "p_value", "anomalous"),
    "reconstruction": ("value",),
}


ANOMALY = "anomaly"
"""The task whose heat maps say where an image is anomalous."""

RECONSTRUCTION = "reconstruction"
"""The task whose answers are images."""

WITH_MAPS = (ANOMALY, RECONSTRUCTION)
"""The tasks whose answers have maps."""

BLOCK_BYTES = 64 * 2**20
"""Of the features that are in memory at a time: a map has a hundred times as many numbers as pooled features."""

TYPICALITY = "typicality"
"""The key of the p-value; only of packages with reference images."""


def predicts(task: str, calibration: Calibration) -> list[str]:
    """The keys of each prediction, without the typicality."""
    if task == ANOMALY:  # whose p-value says how typical an image is
        return [*_PREDICTS[task]]
    further = {
        "low": calibration.margin,
        "high": calibration.margin,
        "set": calibration.set_least,
        "abstain": calibration.threshold,
    }
    return [*_PREDICTS[task], *(key for key, of in further.items() if of is not None)]


class ImageClassifier:
    """A loaded package.

    Args:
        folder: of the package, with graph.xml, head.safetensors, calibration.json and package.json.
    """

    def __init__(self, folder: Path) -> None:
        self.eyes = PackagedEyes(folder)
        self._head = load_head(folder)
        self._calibration = Calibration.load(folder)
        self._known = None if self._head.task == ANOMALY else Typicality.load(folder)

    @property
    def task(self) -> str:
        return self._head.task

    @property
    def dimension(self) -> int:
        """D, the number of features."""
        return self._head.dimension

    @property
    def classes(self) -> list[str]:
        """Empty for regression."""
        return self._head.classes

    @property
    def columns(self) -> list[str]:
        """The keys of each prediction."""
        return [*predicts(self._head.task, self._calibration), *([TYPICALITY] if self._known else [])]

    @property
    def block(self) -> int:
        """How many images' features may be in memory at a time."""
        return max(1, BLOCK_BYTES // (4 * self.dimension))

    @property
    def threshold(self) -> float:
        """An image with a higher score is anomalous; from this value on a pixel of a mask is marked. Or infinite."""
        if isinstance(self._head, DecoderHead):
            return self._head.threshold if self._head.target == "mask" else float("inf")
        found = self._calibration.threshold if self.task == ANOMALY else None
        return float("inf") if found is None else found

    def predict(self, images: Sequence[Any], maps: bool = False) -> list[dict[str, Any]]:
        """One prediction per image, by task:

        classification: `label`, `score` (its probability) and `probabilities` (class -> probability); with
            `head.set_confidence` also `set`, the classes of which one is right with this confidence, the most probable
            first; with a threshold also `abstain`, whether the score is too low
        multilabel: `labels`, those whose probability reaches their threshold, and `probabilities`
        regression: `value`, and `low` and `high`, between which the number is with `head.interval_confidence`
        reconstruction: `value`, the mean of the pixels of the decoded image, from 0 to 1; of a mask the share of the
            image that is marked
        anomaly: `score`, the higher, the less like the good images; `p_value`, the share of good images with such a
            score or a higher one; `anomalous`, whether the score is above the threshold of `head.max_false_alarm`

        With reference images in the package also `typicality`: the p-value that the image is of the same kind as these;
        close to 0, it is unlike anything that the model has learned from.

        Args:
            images: each the bytes of a file, the same as base64 (also as a data URL), or a `Path`; with the channels
                that the model was trained on (see `Reading`).
            maps: also give `map`, see `heat`; for the tasks of `WITH_MAPS`.

        Raises:
            ValueError: an entry is not an image; names its index.
        """
        answers = []
        for rows in blocks(len(images), self.block):
            features_BD = self._features(images, rows)
            answers += self.answers(features_BD)
            if maps:
                found = zip(answers[rows], self.heat(features_BD), strict=True)
                answers[rows] = [{**answer, "map": map_HW} for answer, map_HW in found]
        return answers

    def features(self, images: Sequence[Any]) -> npt.NDArray[np.float32]:
        """(N, D), for images as `predict` takes them; each is decoded once for all backbones. All are in memory."""
        return self._features(images, slice(0, len(images)))

    def _features(self, images: Sequence[Any], rows: slice) -> npt.NDArray[np.float32]:
        """Of images `rows`."""
        start, count = rows.start, rows.stop - rows.start
        return self.eyes.features(lambda i: self._picture(images[start + i], start + i), count)

    def heat(self, features_BD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Where images are anomalous: the score at each pixel that the network sees, (B, H, W), in the unit of `score`.
        For reconstruction the decoded images, from 0 to 1: (B, H, W, C), of masks (B, H, W).

        Raises:
            ValueError: it is another task.
        """
        if isinstance(self._head, DecoderHead):
            images_BCHW = self._head.images(features_BD)
            return images_BCHW[:, 0] if self._head.target == "mask" else np.moveaxis(images_BCHW, 1, 3)
        if not isinstance(self._head, AnomalyHead):
            raise ValueError(f"a model for {self.task} has no maps")
        return self._head.heat(features_BD, (self.eyes.transform.height, self.eyes.transform.width))

    def answers(self, features_ND: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """What `predict` returns for images with these features."""
        output_NK = self._calibration.apply(self._head.output(features_ND))
        columns = _ANSWERED[self._head.task](self, output_NK)
        if self._known is not None:
            form = self.eyes.form
            columns[TYPICALITY] = self._known.p_values(form.means(features_ND) if form else features_ND).tolist()
        return [{name: columns[name][n] for name in self.columns} for n in range(len(output_NK))]

    def _one_class(self, p_NK: npt.NDArray[np.float64]) -> dict[str, list[Any]]:
        label_N = self._calibration.decide(p_NK, "classification")
        columns: dict[str, list[Any]] = {
            "label": [self.classes[k] for k in label_N],
            "score": self._calibration.score(p_NK).tolist(),
            "probabilities": self._by_class(p_NK),
            "abstain": (~self._calibration.answers(p_NK)).tolist(),
        }
        if self._calibration.set_least is not None:
            columns["set"] = self._named(self._calibration.sets(p_NK), np.argsort(-p_NK, axis=1, kind="stable"))
        return columns

    def _several(self, p_NK: npt.NDArray[np.float64]) -> dict[str, list[Any]]:
        found_NK = self._calibration.decide(p_NK, "multilabel") > 0
        in_order_NK = np.broadcast_to(np.arange(p_NK.shape[1]), p_NK.shape)
        return {"labels": self._named(found_NK, in_order_NK), "probabilities": self._by_class(p_NK)}

    def _number(self, output_N1: npt.NDArray[np.float64]) -> dict[str, list[Any]]:
        columns = {"value": output_N1[:, 0].tolist()}
        if self._calibration.margin is not None:
            low_N, high_N = self._calibration.ends(output_N1)
            columns |= {"low": low_N.tolist(), "high": high_N.tolist()}
        return columns

    def _anomaly(self, output_N1: npt.NDArray[np.float64]) -> dict[str, list[Any]]:
        assert isinstance(self._head, AnomalyHead)
        score_N = output_N1[:, 0]
        return {
            "score": score_N.tolist(),
            "p_value": self._head.p_values(score_N).tolist(),
            "anomalous": (score_N > self.threshold).tolist(),
        }

    def _by_class(self, p_NK: npt.NDArray[np.float64]) -> list[dict[str, float]]:
        return [dict(zip(self.classes, row, strict=True)) for row in p_NK.tolist()]

    def _named(self, has_NK: npt.NDArray[np.bool_], order_NK: npt.NDArray[np.int64]) -> list[list[str]]:
        """The names of the classes that each image has, in the order of the image."""
        return [[self.classes[k] for k in order_K if has_K[k]] for has_K, order_K in zip(has_NK, order_NK, strict=True)]

    @contextmanager
    def _picture(self, image: Any, place: int) -> Iterator[Picture]:
        reading = self.eyes.reading
        with ExitStack() as held:
            try:
                source = _source(image)
                if isinstance(source, Path):
                    source = held.enter_context(content_of(source, reading.limits))
                picture = held.enter_context(reading.image(source))
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(f"input {place} is not an image that can be read: {error}") from error
            yield picture


_ANSWERED = {
    "classification": ImageClassifier._one_class,
    "multilabel": ImageClassifier._several,
    "regression": ImageClassifier._number,
    "anomaly": ImageClassifier._anomaly,
    "reconstruction": ImageClassifier._number,
}


def _source(image: Any) -> Path | bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Path):
        return image
    if not isinstance(image, str):
        raise TypeError(f"bytes or base64 is needed, got {type(image).__name__}")
    text = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or letters that are not ASCII
        raise ValueError(
            f"{image[:80]!r} is not base64; a string is never opened as a file or URL (in Python, give bytes or a Path)"
        ) from None
