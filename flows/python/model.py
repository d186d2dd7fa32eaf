"""A model that predicts, after a check that its files are those that were made."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from graft.tasks.common.core.errors import DataError
from graft.tasks.register.serving import WITH_MAPS, ImageClassifier

from ..serving.columns import verdict
from ..serving.heat_maps import heat_picture
from ..serving.loading import open_model
from . import display
from .display import content
from .images import Given, Images

SHOWN = 24
"""How many images with their predictions a notebook shows."""


@dataclass(frozen=True, repr=False)
class Predictions:
    """What a model says about images. N images, K classes.

    Attributes:
        table: one row per image: `image` (its path or number); for one class `label` and `score` (its probability), for
            several `labels`, for numbers and reconstruction `value`, for anomaly `score`, `p_value` and `anomalous`;
            further columns by the parameters: see "Use the model".
        probabilities: (N, K) float64, one column per class; without columns for numbers and anomalies.
        maps: with `maps=True` float32 (N, H, W), the score at each pixel that the network sees, or (N, H, W, C), the
            decoded images; otherwise None.
        classifier: the model.
    """

    table: pd.DataFrame
    probabilities: pd.DataFrame
    images: Images
    classifier: ImageClassifier
    maps: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        return iter(self.table.to_dict("records"))

    @property
    def threshold(self) -> float:
        """An image with a higher score is anomalous, a pixel of a mask with this value marked; otherwise infinite."""
        return self.classifier.threshold

    def heat_map(self, place: int) -> Image.Image:
        """An image under its heat map.

        Raises:
            DataError: `predict` was called without maps.
        """
        if self.maps is None:
            raise DataError("these predictions have no maps", todo="call predict with maps=True")
        with content(self.images[place]) as given, self.classifier.eyes.reading.image(given) as picture:
            return Image.fromarray(heat_picture(self.classifier, picture, self.maps[place]))

    def __repr__(self) -> str:
        return self.table.to_string(max_rows=SHOWN)

    def _repr_html_(self) -> str:
        shown = islice(zip(self._captions(), self._pictures()), SHOWN)
        columns = [name for name in self.table.columns if name != "abstain" or self.table[name].any()]
        rows = [[_text(value) for value in row] for row in self.table[columns].head(SHOWN).itertuples(index=False)]
        title = f"{len(self):,} predictions" + (f", the first {SHOWN}" if len(self) > SHOWN else "")
        return display.table(title, columns, rows, display.thumbnails(shown))

    def _pictures(self) -> Iterator[Path | bytes]:
        """What a notebook shows: the images, or their heat maps."""
        if self.maps is None:
            yield from self.images
        else:
            yield from (_png(self.heat_map(place)) for place in range(len(self)))

    def _captions(self) -> Iterator[str]:
        answer = next(name for name in ("label", "labels", "value", "anomalous") if name in self.table)
        return (verdict(row) if answer == "anomalous" else _text(row[answer]) for row in self)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _with_name(message: str, names: list[str]) -> str:
    """The classifier knows an image by its number alone."""
    found = re.match(r"input (\d+) ", message)
    return f"{names[int(found[1])]}: {message}" if found else message


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        name: `models/package`, or a version in MLflow's registry.
        classes: their names, in the order of the probabilities; empty for numbers.
    """

    name: str
    classes: list[str]
    classifier: ImageClassifier

    def predict(self, images: Given | Iterable[Given], *, maps: bool = False) -> Predictions:
        """Predicts images, each decoded, resized and cropped as in training.

        Args:
            images: a path, a folder, the bytes of a file, a PIL image, an array of uint8 with shape (H, W) or
                (H, W, C), or several of these.
            maps: also give `maps`, which say where images are anomalous, or are the decoded images; for a model for
                anomaly or reconstruction.

        Raises:
            DataError: there are no images, one cannot be read, or the model has no maps.
        """
        given = Images(images)
        if maps and self.classifier.task not in WITH_MAPS:
            raise DataError(
                "this model has no maps",
                got=f"a model for {self.classifier.task}, and maps=True",
                allowed="a model for anomaly or reconstruction",
                todo="call predict without maps",
            )
        try:
            answers = self.classifier.predict(given, maps)
        except ValueError as error:
            raise DataError(
                "the images cannot be predicted", got=_with_name(str(error), given.names), todo="leave that image out"
            ) from error
        columns = [name for name in self.classifier.columns if name != "probabilities"]
        table = pd.DataFrame(answers, columns=columns)
        table.insert(0, "image", given.names)
        rows = [answer.get("probabilities", {}) for answer in answers]
        maps_NHW = np.stack([answer["map"] for answer in answers]) if maps else None
        by_class = pd.DataFrame(rows, index=table["image"], columns=self.classes)
        return Predictions(table, by_class, given, self.classifier, maps_NHW)


def load_model(root: Path, wanted: str) -> Model:
    """`package` for models/package, which must be as dvc.lock says; otherwise an alias or a version of the registered
    model, which must be as it was registered.

    Raises:
        GraftError: there is no such model, or its files are not those that were made.
    """
    with open_model(wanted, root) as found:
        found.classifier.eyes.load()
        return Model(found.where, found.classifier.classes, found.classifier)
