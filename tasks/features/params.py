"""The section `features` of params.yaml."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ..common.core.errors import ParamsError
from ..common.core.sections import Section
from ..common.images.transform import Crop

LARGEST_SIDE = 4096
"""Pixels; for larger images a single activation of a network takes gigabytes."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Size = tuple[Side, Side]
Depth = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


def _one_or_several(value: object) -> object:
    """A list as a tuple; the only item of a list by itself."""
    if not isinstance(value, list | tuple):
        return value
    return value[0] if len(value) == 1 else tuple(value)


def _sizes(value: object) -> object:
    """(height, width), `train` or None; or several sizes. An error is reported once, not once per side."""
    if value is None or value == "train":
        return value
    if isinstance(value, list | tuple) and not (len(value) == 2 and all(_is_side(side) for side in value)):
        if value and (len(value) > 2 or any(isinstance(size, list | tuple) for size in value)):
            return _one_or_several([_sides(size) for size in value])
        raise _no_size()
    return _sides(value)


def _sides(value: object) -> tuple[int, int]:
    sides: Any = value if isinstance(value, list | tuple) else [value, value]
    if len(sides) == 2 and all(_is_side(side) for side in sides):
        return sides[0], sides[1]
    raise _no_size()


def _depths(value: object) -> object:
    """A list of depths, also of one that is not in a list."""
    return (value,) if type(value) is int or (isinstance(value, str) and value != "auto") else value


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_SIDE


def _no_size() -> PydanticCustomError:
    return PydanticCustomError(
        "image_size",
        f"must be a number from 1 to {LARGEST_SIDE}, [height, width], train, or null; for several sizes a "
        "list of [height, width], or of three or more numbers",
    )


class EyeOf(NamedTuple):
    """One backbone at one size; its weights."""

    backbone: str
    weights: str
    weights_sha256: str | None
    image_size: tuple[int, int] | Literal["train"] | None


class FeaturesParams(Section):
    """The frozen network that computes features, or several, and the engine that runs them."""

    backbone: Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], BeforeValidator(_one_or_several)] = (
        "tf_efficientnet_lite0"
    )
    """A name that `graft models` lists (`ResNet50`, `DINOv2-S`), or any timm name, with or without a tag. A list
    computes the features of each, at each of `image_size`."""

    weights: Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], BeforeValidator(_one_or_several)] = "auto"
    """`auto` takes the first of: data/weights/<backbone>.safetensors (or .pth, .pt, .bin), an installed weights
    package, timm's hub, or Keras' file where the hub has none. Or say `package`, `hub`, `keras`, `keras:<path>.h5`, a
    file's path, or `random` (for tests). With several backbones, one for all or a list with one for each."""

    weights_sha256: Annotated[
        Sha256 | Annotated[tuple[Sha256 | None, ...], Field(min_length=1)] | None, BeforeValidator(_one_or_several)
    ] = None
    """If given, a weights file with another SHA-256 is refused, wherever it comes from. With several backbones, a list
    with one (or null) for each."""

    output: Literal["pre_logits", "pooled", "class_token", "patch_mean", "class_and_patch_mean"] = "pre_logits"
    """`pre_logits` is what the pre-trained classifier sees; `pooled` the mean of the last feature maps, before any
    hidden layer of the classifier (VGG: 512 features instead of 4,096). For transformers: `class_token`, `patch_mean`
    (the mean of the tokens that stand for patches), or both side by side, `class_and_patch_mean`, as DINOv2 does."""

    image_size: Annotated[
        Size | Literal["train"] | tuple[Size, ...] | None,
        BeforeValidator(_sizes, json_schema_input_type=Side | Size | Literal["train"] | list[Side | Size] | None),
    ] = None
    """Size of the network's input, in pixels: one number, or [height, width]; null: that with which timm tests the
    weights; `train`: that of pre-training. Several sizes are a list of [height, width], or of three or more numbers; a
    list of two numbers is one [height, width]."""

    crop: Crop = "auto"
    """What the network sees of an image: `auto`, as its weights are tested (usually `center`); `center`, the middle;
    `squash`, all of it, with other proportions; `border`, all of it, with bars of the mean colour."""

    maps: Annotated[Literal["auto"] | Annotated[tuple[Depth, ...], Field(min_length=1)], BeforeValidator(_depths)] = (
        "auto"
    )
    """For the tasks anomaly and reconstruction: the depths of the network whose feature maps are compared, or decoded.
    `auto`: those of stride 8 and 16, or of strides 4 to 32. Or a list of strides (of a transformer, numbers of blocks,
    from 0), or of names of the network's modules."""

    map_channels: int = Field(160, ge=1)
    """Maps of more channels than these are projected to so many, in random directions that are the same each time."""

    tiles: int = Field(1, ge=1, le=8)
    """For maps: n x n tiles a picture, each seen at the network's input size, for defects that are small beside the
    picture."""

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

    @model_validator(mode="after")
    def _lists_agree(self) -> Self:
        names = self.backbone if isinstance(self.backbone, tuple) else (self.backbone,)
        for key in ("weights", "weights_sha256"):
            given = getattr(self, key)
            if isinstance(given, tuple) and len(given) != len(names):
                raise ValueError(f"`{key}` must have one entry for each backbone, got {len(given)} for {len(names)}")
        if len(names) > 1 and isinstance(self.weights_sha256, str):
            raise ValueError(
                "with several backbones, `weights_sha256` must be a list with one entry (or null) for each"
            )
        found = self._combinations()
        if len(set(found)) < len(found):
            raise ValueError(f"no backbone with the same weights and no size may be named twice, got {_named(found)}")
        return self

    def _combinations(self) -> list[EyeOf]:
        names = self.backbone if isinstance(self.backbone, tuple) else (self.backbone,)
        weights = self.weights if isinstance(self.weights, tuple) else (self.weights,) * len(names)
        pinned = self.weights_sha256 if isinstance(self.weights_sha256, tuple) else (self.weights_sha256,) * len(names)
        size: Any = self.image_size
        sizes = size if size is not None and isinstance(size[0], tuple) else (size,)
        return [EyeOf(*one, size) for one, size in product(zip(names, weights, pinned, strict=True), sizes)]

    @property
    def eyes(self) -> list[FeaturesParams]:
        """The parameters of each backbone at each size; of one, these."""
        return [self.model_copy(update=eye._asdict()) for eye in self._combinations()]

    @property
    def eye(self) -> EyeOf:
        """The only backbone and size.

        Raises:
            ParamsError: there are several.
        """
        found = self._combinations()
        if len(found) > 1:
            raise ParamsError(
                "params.yaml: `features` must name one backbone and one size here",
                got=_named(found),
                allowed="one backbone and one size",
                todo="name one in `features.backbone` and `features.image_size`",
            )
        return found[0]


def _named(eyes: list[EyeOf]) -> str:
    return ", ".join(
        eye.backbone + (f" at {' x '.join(map(str, eye.image_size))}" if isinstance(eye.image_size, tuple) else "")
        for eye in eyes
    )
