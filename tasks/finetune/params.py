"""The section `finetune` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..common.params import Section


class FinetuneParams(Section):
    """Training of all layers, from the trained head on (LP-FT, Kumar et al. 2022)."""

    mode: Literal["off", "auto", "on"] = "auto"
    """`auto` trains when there are enough images and the time fits `budget_minutes`. Whatever was trained is only kept
    if it is better than the frozen head on validation."""

    budget_minutes: float = Field(2.0, gt=0)
    """What `auto` may spend; predicted from measured steps before it starts."""

    min_images: int = Field(500, ge=1)
    """Fewer training images than this are too few for `auto`."""

    epochs: int = Field(10, ge=1)
    """Passes over the training images."""

    patience: int = Field(3, ge=1)
    """Training ends after this many epochs without a better validation loss."""

    batch_size: int = Field(32, ge=2)
    """Images a step."""

    learning_rate: float = Field(3e-4, gt=0)
    """AdamW's highest rate, for all layers; reached after the warm-up, then falling as a cosine."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises."""

    weight_decay: float = Field(0.02, ge=0)
    """On weights; not on biases and norms."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """How much of each label is spread over all classes."""

    batch_norm: Literal["frozen", "running"] = "frozen"
    """`frozen` keeps the statistics of pre-training, which is right for small data; `running` updates them."""

    crop_scale: float = Field(0.6, gt=0, le=1)
    """The least share of an image's area that a random crop keeps."""

    flip: bool = True
    """Whether images are mirrored at random; false where left and right differ in meaning."""

    colour: float = Field(0.2, ge=0, le=1)
    """How far brightness, contrast and saturation vary."""

    precision: Literal["auto", "f32", "bf16"] = "auto"
    """`auto` is bf16 autocast on a GPU and on processors with AMX."""

    seed: int = 0
    """Of the order of the images and of their augmentation."""
