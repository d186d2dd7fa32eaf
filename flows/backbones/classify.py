"""`graft classify`: images classified by a pretrained network with its own classifier, without any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.tasks.common.backbones.catalogue import timm_name
from graft.tasks.common.backbones.graph import Graph, backbone_graph, settled
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.errors import DataError, ParamsError, WeightsError
from graft.tasks.common.core.files import read_json, write_shared_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.heads.base import softmax
from graft.tasks.common.images.decode import Pixels
from graft.tasks.common.images.reading import Reading, content_of
from graft.tasks.common.images.unreadable import UnreadableImage, in_words
from graft.tasks.features.params import FeaturesParams
from graft.tasks.preprocess.layouts import hidden
from graft.tasks.preprocess.walk import named_by

from ..runtime.locations import Place
from ..runtime.params import load_params
from .table import timm_name_of

Labels = list[tuple[str, str]]
"""For each ImageNet class (WordNet's number, names), in the order of the classifier's rows."""


@dataclass(frozen=True)
class Seen:
    """The classification of one file.

    Attributes:
        guesses: (WordNet's number, names, probability), the most likely first; empty if the file could not be read.
        error: why it could not be read.
    """

    file: str
    guesses: tuple[tuple[str, str, float], ...] = ()
    error: str = ""

    def row(self) -> dict[str, Any]:
        """For JSON."""
        if self.error:
            return {"file": self.file, "error": self.error}
        keys = ("synset", "label", "probability")
        return {"file": self.file, "predictions": [dict(zip(keys, guess)) for guess in self.guesses]}


@dataclass(frozen=True)
class Classifier:
    """A network with its classifier, ready for images."""

    graph: Graph
    labels: Labels
    reading: Reading = field(default_factory=Reading)

    def look(self, files: Sequence[Path], top: int) -> Iterator[Seen]:
        """Classifies each file, in order; one that cannot be read does not stop the others."""
        engine = Engine(self.graph.xml, "f32")
        errors: dict[int, str] = {}
        for start, logits_NK in engine.stream(_loader(files, self.graph, self.reading, errors), len(files)):
            for place, probabilities in enumerate(softmax(logits_NK.astype(np.float64)), start):
                if place in errors:
                    yield Seen(str(files[place]), error=errors.pop(place))
                else:
                    yield Seen(str(files[place]), self._likeliest(probabilities, top))

    def _likeliest(self, probabilities_K: npt.NDArray[np.float64], top: int) -> tuple[tuple[str, str, float], ...]:
        order = np.argsort(-probabilities_K, kind="stable")[:top]
        return tuple((*self.labels[k], round(float(probabilities_K[k]), 6)) for k in order)


def _loader(files: Sequence[Path], graph: Graph, reading: Reading, errors: dict[int, str]) -> Callable[[int], Pixels]:
    """A function that loads file i as pixels: black ones, and an entry in `errors`, if it cannot be read."""
    transform = graph.spec.transform

    def load(number: int) -> Pixels:
        try:
            with content_of(files[number], reading.limits) as content, reading.image(content) as picture:
                return transform(*picture)
        except (OSError, UnreadableImage) as error:
            errors[number] = in_words(error)
            return np.zeros((transform.height, transform.width, 3), np.uint8)

    return load


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The given files, and all files below the given folders, or in the given shards, except hidden ones, as `graft
    import` finds them.

    Raises:
        DataError: there are no files.
    """
    files = []
    for path in paths:
        found = named_by(path)
        files += [path] if found is None else [found[0] / name for name in found[1] if not hidden(name)]
    if not files:
        raise DataError(
            "there are no images to classify",
            got=", ".join(map(str, paths)),
            allowed="image files, or folders of them",
            todo="name an image, or a folder with files that are not hidden",
        )
    return files


def classifier_for(backbone: str | None, weights: str | None, place: Place) -> Classifier:
    """The requested network. Defaults come from the project's params.yaml, the first of several backbones, or are
    Graft's own; so do the limits of images and the range of grey ones (`auto`: what preprocess has found).

    Raises:
        ParamsError: there is no such network, or its labels are not known.
        WeightsError: there are no weights, or they belong to another network, or have no or another classifier.
    """
    chosen, reading = _chosen(place)
    own = chosen.eye
    pinned = own.weights_sha256 if backbone is None and weights is None else None
    wanted = weights or ("auto" if backbone else own.weights)
    name = timm_name(backbone or own.backbone, wanted)
    source = find_weights(name, wanted, place.weights, pinned, "logits")
    if place.root is None and not (place.cache / "graphs").is_dir():
        say(f"not in a project: the graph of the network is kept in {place.cache}")
    if source.kind == "random":
        say(f"warning: {name} has random weights, so its labels mean nothing")
    labels = _labels(name, place.cache)
    form = settled(Form("logits", image_size="test"), name, source, place.cache)
    graph = backbone_graph(name, source, place.cache, form).showing(chosen.crop)
    if graph.spec.dimension != len(labels):
        raise WeightsError(
            f"the labels of these weights of {name} are not known",
            got=f"{graph.spec.dimension:,} classes in {source.kind}: {source.where}",
            allowed=f"{len(labels):,} classes, as in pre-training",
            todo="use the weights of the pre-training; a model that you trained yourself predicts from its package",
        )
    return Classifier(graph, labels, reading)


def _chosen(place: Place) -> tuple[FeaturesParams, Reading]:
    """What params.yaml says about the network and about reading images; the defaults outside a project."""
    if place.root is None:
        return FeaturesParams(), Reading()
    params = load_params(place.root / "params.yaml")
    declared = params.preprocess.range
    span = Reading.load(Paths(place.root).manifest).span if declared == "auto" else declared
    return params.features.eyes[0], Reading(span=span, limits=params.preprocess.limits)


def _labels(name: str, cache: Path) -> Labels:
    """The names of the classes, kept in the cache, because importing timm takes seconds.

    Raises:
        ParamsError: there is no such network, it has no classifier, or timm does not know its labels.
    """
    memory = cache / "labels" / f"{name}.json"
    if not memory.is_file():
        write_shared_json(memory, _labels_from_timm(timm_name_of(name)))
    return [(synset, label) for synset, label in read_json(memory)]


def _labels_from_timm(name: str) -> Labels:
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset

    from graft.tasks.common.backbones import network  # noqa: F401  (timm then knows our own as well)

    classes = timm.get_pretrained_cfg(name).num_classes
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        raise ParamsError(
            f"the labels of {name} are not known",
            got=f"{classes:,} outputs" if classes else "weights without a classifier",
            allowed="a network that was trained on ImageNet (1,000 labels, or timm's larger sets)",
            todo="choose another network with --backbone, such as tf_efficientnet_lite0 or ResNet50",
        )
    info = ImageNetInfo(subset)
    return list(zip(info.label_names(), info.label_descriptions()))
