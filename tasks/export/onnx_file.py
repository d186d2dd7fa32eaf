"""The ONNX file: picture, preprocessing, backbones, head, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto, helper

from ..common.core.files import read_json
from ..common.heads.base import Head
from ..common.heads.calibration import Calibration
from ..common.heads.load import load_head
from ..common.heads.typicality import Typicality
from ..common.images.transform import EvalTransform
from ..register.packaged_eyes import eyes_in
from ..register.serving import ANOMALY
from .answers import Answer, answers_of
from .builder import Builder
from .network import features_of
from .resize import network_pixels

PICTURE = "picture"
"""The name of the input."""


@dataclass(frozen=True)
class Parts:
    """What a package consists of, as far as it is exported.

    Attributes:
        graphs: the .xml file of each backbone, in the order of their features.
        transforms: of each of them.
        known: None without reference images, and of the task anomaly, which has p-values of its own.
    """

    graphs: list[Path]
    transforms: list[EvalTransform]
    head: Head
    calibration: Calibration
    known: Typicality | None

    @classmethod
    def of(cls, package: Path) -> Parts:
        eyes, head = eyes_in(read_json(package / "package.json")), load_head(package)
        return cls(
            graphs=[package / f"{eye['graph']}.xml" for eye in eyes],
            transforms=[EvalTransform.from_dict(eye["transform"]) for eye in eyes],
            head=head,
            calibration=Calibration.load(package),
            known=None if head.task == ANOMALY else Typicality.load(package),
        )


def onnx_model(parts: Parts, facts: dict[str, str]) -> ModelProto:
    """From one picture, uint8 (height, width, C) of any size, to the answers for it.

    Raises:
        GraftError: the network, its resize or its head cannot be exported.
    """
    build = Builder()
    seen: dict[EvalTransform, str] = {}
    features = []
    for graph, transform in zip(parts.graphs, parts.transforms, strict=True):
        if transform not in seen:
            seen[transform] = network_pixels(build, PICTURE, transform)
        features.append(features_of(build, graph, seen[transform]))
    together = build.node("Concat", *features, axis=1) if len(features) > 1 else features[0]
    answers = answers_of(build, parts.head, parts.calibration, parts.known, together)
    outputs = [_without_batch(build, answer) for answer in answers]
    shape = ["height", "width", parts.transforms[0].channels]
    return build.model([helper.make_tensor_value_info(PICTURE, TensorProto.UINT8, shape)], outputs, facts)


def _without_batch(build: Builder, answer: Answer) -> Any:
    build.name(build.node("Squeeze", answer.value, build.integers(0)), answer.name)
    return helper.make_tensor_value_info(answer.name, answer.kind, answer.shape)


def head_model(parts: Parts, dimension: int) -> ModelProto:
    """From features, float32 (B, D), to the answers for them."""
    build = Builder()
    outputs = []
    for answer in answers_of(build, parts.head, parts.calibration, parts.known, "features"):
        build.name(answer.value, answer.name)
        outputs.append(helper.make_tensor_value_info(answer.name, answer.kind, ["images", *answer.shape]))
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["images", dimension])
    return build.model([features], outputs, {})
