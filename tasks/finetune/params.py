"""The section `finetune` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..common.augmentation.recipe import Recipe
from ..common.core.sections import Section

Auto = Literal["auto"]

FREE = {"mode", "budget_minutes", "min_images", "significance", "processes", "checkpoint_every"}
"""Parameters that do not change what is learned."""


class FinetuneParams(Section):
    """Training of the backbone's layers, from the trained head on (LP-FT, Kumar et al. 2022) or from scratch."""

    mode: Literal["off", "auto", "on"] = "auto"
    """`auto` trains when it can pay: there are enough images, the frozen head leaves enough to gain, and the time fits
    `budget_minutes`. Whatever was trained is only kept if it is better than the frozen head on validation."""

    budget_minutes: float = Field(5.0, gt=0)
    """What `auto` may spend; predicted from measured steps before it starts."""

    min_images: int = Field(500, ge=1)
    """Fewer training images than this are too few for `auto`."""

    significance: float = Field(0.05, gt=0, le=0.5)
    """How small the chance must be that an equal model had looked as much better on validation (a paired test), for
    what was trained to be kept."""

    init: Literal["pretrained", "scratch"] = "pretrained"
    """`scratch` forgets what was transferred, and trains all layers from random weights, whatever `layers` says; to
    compare with."""

    layers: Literal["all", "last_stage", "norm"] = "last_stage"
    """What of the backbone is trained: `all`; `last_stage`, on cached maps of the frozen layers before it, which is
    much faster; `norm`, the scale and shift of its norm layers. The last layer always is."""

    views: Auto | Annotated[int, Field(ge=0)] = "auto"
    """For `last_stage`: augmented views of each training image, whose maps are cached; an epoch learns from one of
    them. `auto`: as many as there are epochs; 0: the images as they are."""

    epochs: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Passes over the training images; `auto` shows about 15,000 images (60,000 from scratch), each 4 to 50 times (15
    to 100)."""

    patience: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Training ends after this many epochs without a better validation loss; `auto`: a third of all, 5 at least."""

    batch_size: int = Field(32, ge=2)
    """Images a step, of all processes together."""

    accumulate: int = Field(1, ge=1)
    """A step's images go through the network in so many parts; more need less memory. When memory runs out, it is
    doubled by itself."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`sgd` has Nesterov's momentum of 0.9."""

    learning_rate: Auto | Annotated[float, Field(gt=0)] = "auto"
    """The last layer's highest rate; reached after the warm-up, then falling as a cosine. `auto` goes by optimizer,
    batch, start and number of images: for 32 images AdamW has 2e-3, SGD 2e-2 (1e-1 from scratch), and half of it from
    20,000 training images on."""

    layer_decay: Auto | Annotated[float, Field(gt=0, le=1)] = "auto"
    """Each layer's rate is this times the rate of the layer above it; from scratch all have the same. `auto` is 0.9,
    and 0.85 from 20,000 training images on."""

    unfreeze: Literal["at_once", "gradual"] = "at_once"
    """`gradual` trains the last layer first and the others one after the other, all in the second half."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises."""

    weight_decay: float = Field(0.02, ge=0)
    """On matrices and filters; not on biases and norms."""

    clip: float = Field(1.0, ge=0)
    """The longest that a step's gradient may be; 0: any."""

    ema: Auto | Annotated[float, Field(ge=0, lt=1)] = "auto"
    """Validated and kept are moving averages of the weights; this much of the average stays at each step. `auto`: an
    average over about one epoch; 0: the weights themselves."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """How much of each label is spread over all classes."""

    batch_norm: Literal["auto", "frozen", "running"] = "auto"
    """`frozen` keeps the statistics of pre-training, which is right for small data, and nearly twice as fast; `running`
    updates them. `auto`: running from scratch only."""

    mixup: Auto | Annotated[float, Field(ge=0)] = "auto"
    """Of the Beta distribution by which two images and their labels are mixed; 0: none. `auto`: 0.1 from 20,000
    training images on, from scratch 0.2."""

    cutmix: Auto | Annotated[float, Field(ge=0)] = "auto"
    """The same for pasting a box of another image; with both, each pair has one of them. `auto`: from scratch 1.0 from
    20,000 training images on."""

    augment: Recipe = "standard"
    """What is random in what the network sees: `none`, `light`, `standard`, `strong`, or a list of steps as
    albumentations writes them; the contact sheet shows it."""

    flip: bool = True
    """Whether the named ones mirror at random; false where left and right differ in meaning."""

    precision: Literal["auto", "f32", "bf16"] = "auto"
    """`auto` is bf16 autocast on a GPU and on processors with AMX."""

    processes: int = Field(0, ge=0)
    """Processes that share each step's images; 0: one for each GPU, or one."""

    decoded_gb: float = Field(8.0, ge=0)
    """Disk space, in GB, for images that are decoded and resized only once, images beyond are decoded in every epoch;
    or for maps: `views: auto` has no more views than fit."""

    checkpoint_every: float = Field(5.0, gt=0)
    """Minutes between checkpoints, the most that is lost when training is killed; there is one after each epoch too."""

    seed: int = 0
    """Of the order of the images, their augmentation, and all else that is random."""

    @property
    def trained(self) -> Literal["all", "last_stage", "norm"]:
        """The layers that are trained: random ones are of no use frozen."""
        return "all" if self.init == "scratch" else self.layers
