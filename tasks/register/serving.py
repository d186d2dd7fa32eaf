"""The packaged model: from images as bytes or base64 to label, score and probabilities (or several labels and their
probabilities, or a number), and with a threshold whether the model abstains.

A string is base64 and never the name of a file, since clients of a server send strings. Callers in Python may also pass
`Path` objects.

The package has a copy of this module and of the few that it imports, so that a model predicts with the code that it was
tested with. It needs OpenVINO, Pillow, NumPy and safetensors, but neither torch nor timm nor MLflow.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..common.heads.base import decide
from ..common.heads.calibration import Calibration
from ..common.heads.load import load_head
from ..common.images.decode import Picture, decode_bands
from .packaged_eyes import PackagedEyes

_PREDICTS = {
    "classification": ("label", "score", "probabilities"),
    "multilabel": ("labels", "probabilities"),
    "regression": ("value",),
}


def predicts(task: str, calibration: Calibration) -> list[str]:
    """The keys of each prediction."""
    return [*_PREDICTS[task], *([] if calibration.threshold is None else ["abstain"])]


class ImageClassifier:
    """A loaded package.

    Args:
        folder: of the package, with graph.xml, head.safetensors, calibration.json and package.json.
    """

    def __init__(self, folder: Path) -> None:
        self._eyes = PackagedEyes(folder)
        self._head = load_head(folder)
        self._calibration = Calibration.load(folder)

    @property
    def classes(self) -> list[str]:
        """Empty for regression."""
        return self._head.classes

    @property
    def columns(self) -> list[str]:
        """The keys of each prediction."""
        return predicts(self._head.task, self._calibration)

    def predict(self, images: Sequence[Any]) -> list[dict[str, Any]]:
        """One prediction per image, by task:

        classification: `label`, `score` (its probability) and `probabilities` (class -> probability); with a threshold
            also `abstain`, whether the score is too low
        multilabel: `labels`, those with a probability of 0.5 or more, and `probabilities`
        regression: `value`

        Args:
            images: each the bytes of a file, the same as base64 (also as a data URL), or a `Path`; with the channels
                that the model was trained on (see `decode_bands`).

        Raises:
            ValueError: an entry is not an image; names its index.
        """
        return self.answers(self.features(images)) if len(images) else []

    def features(self, images: Sequence[Any]) -> npt.NDArray[np.float32]:
        """(N, D), for images as `predict` takes them; each is decoded once for all backbones."""
        return self._eyes.features(lambda i: self._picture(images[i], i), len(images))

    def answers(self, features_ND: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """What `predict` returns for images with these features."""
        output_NK = self._calibration.apply(self._head.output(features_ND))
        if self._head.task == "regression":
            return [{"value": value} for value in output_NK[:, 0].tolist()]
        return self._one_class(output_NK) if self._head.task == "classification" else self._several(output_NK)

    def _one_class(self, p_NK: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
        answers_N, abstains = self._calibration.answers(p_NK), "abstain" in self.columns
        return [
            {
                "label": self.classes[int(row.argmax())],
                "score": float(row.max()),
                "probabilities": dict(zip(self.classes, row.tolist(), strict=True)),
                **({"abstain": not answers} if abstains else {}),
            }
            for row, answers in zip(p_NK, answers_N.tolist(), strict=True)
        ]

    def _several(self, p_NK: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
        return [
            {
                "labels": [name for name, found in zip(self.classes, found_K, strict=True) if found],
                "probabilities": dict(zip(self.classes, row.tolist(), strict=True)),
            }
            for row, found_K in zip(p_NK, decide(p_NK, "multilabel").tolist(), strict=True)
        ]

    def _picture(self, image: Any, place: int) -> Picture:
        try:
            return decode_bands(_source(image), self._eyes.channels)
        except (OSError, ValueError, TypeError, Image.DecompressionBombError) as error:
            raise ValueError(f"input {place} is not an image that can be read: {error}") from error


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
