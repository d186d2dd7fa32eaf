"""The section `features` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ..common.core.sections import Section

LARGEST_SIDE = 4096
"""Pixels; for larger images a single activation of a network takes gigabytes."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


def _sides(value: object) -> object:
    """[height, width] from one or two numbers; an error is reported once, not once per side."""
    sides = value if isinstance(value, list | tuple) else [value, value]
    if value is None or (len(sides) == 2 and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides)):
        return value and tuple(sides)
    raise PydanticCustomError("image_size", f"must be a number from 1 to {LARGEST_SIDE}, [height, width], or null")


class FeaturesParams(Section):
    """The frozen network that computes features, and the engine that runs it."""

    backbone: str = "tf_efficientnet_lite0"
    """A name of the Keras table (`ResNet50`) or any timm model name, with or without a tag; see `graft models`."""

    weights: str = "auto"
    """`auto` takes the first of: data/weights/<backbone>.safetensors (or .pth, .pt, .bin), an installed weights
    package, timm's hub, or Keras' file where the hub has none. Or say `package`, `hub`, `keras`, `keras:<path>.h5`, a
    file's path, or `random` (for tests)."""

    weights_sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    """If given, a weights file with another SHA-256 is refused, wherever it comes from."""

    output: Literal["pre_logits", "pooled"] = "pre_logits"
    """`pre_logits` is what the pre-trained classifier sees; `pooled` the mean of the last feature maps, before any
    hidden layer of the classifier (VGG: 512 features instead of 4,096)."""

    image_size: Annotated[
        tuple[Side, Side] | None, BeforeValidator(_sides, json_schema_input_type=Side | tuple[Side, Side] | None)
    ] = None
    """Size of the network's input, in pixels: one number, or [height, width]; null: as in pre-training."""

    engine: Literal["auto", "openvino", "torch"] = "auto"
    """`openvino` runs on the processor, `torch` on a GPU; `auto` takes torch where there is a GPU (CUDA or MPS)."""

    precision: Literal["auto", "f32", "bf16"] = "auto"
    """`auto` takes bf16 where it is fast (a processor with AMX, a GPU that has it), after comparing it with fp32 on
    64 images."""

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored features, in the cache and in data/features; half precision takes half the space."""

    threads: int = Field(0, ge=0)
    """Decoding threads; 0: one per core."""

    views: int = Field(0, ge=0)
    """Augmented copies of each training image, on which the head is trained as well; 0: none."""

    view_crop_scale: float = Field(0.6, gt=0, le=1)
    """The smallest share of an image's area that a view's random crop keeps."""

    view_flip: bool = True
    """Whether views are flipped at random; set false where left and right differ in meaning."""

    view_colour: float = Field(0.2, ge=0, le=1)
    """How far a view's brightness, contrast and saturation vary."""

    view_seed: int = 0
    """Another seed gives other views."""
