"""The section `finetune` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ..common.augmentation.recipe import Recipe
from ..common.core.sections import Section

Auto = Literal["auto"]

FREE = {
    "mode",
    "budget_minutes",
    "min_images",
    "significance",
    "margin",
    "folds",
    "refit",
    "processes",
    "checkpoint_every",
}
"""Parameters that do not change what is learned."""


def _folds(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 0 and value != 1):
        return value
    raise PydanticCustomError("folds", "must be auto, 0, or a whole number from 2 on")


class FinetuneParams(Section):
    """Training of the backbone's layers, starting from the trained head (LP-FT, Kumar et al. 2022) or from scratch."""

    mode: Literal["off", "auto", "on"] = "auto"
    """`auto` trains when it can pay: there are enough images, the frozen head makes enough errors, and the time fits
    `budget_minutes`. The result is kept only if it is better than the frozen head on validation."""

    budget_minutes: float = Field(1.0, gt=0)
    """How long `auto` may train; predicted from measured steps before it starts. If training needs more, `auto` prints
    the number of minutes to set here."""

    min_images: int = Field(500, ge=1)
    """Fewer training images than this are too few for `auto`."""

    significance: float = Field(0.05, gt=0, le=0.5)
    """The largest p at which the fine-tuned model is kept: of paired tests of the deciding metric and of the log loss
    together. A model that is no better is kept with at most this probability."""

    margin: float = Field(0.02, ge=0)
    """How much worse the deciding metric may be, at the lower end of its paired difference, where it is the log loss
    that is better: 0.02 is 2 points."""

    folds: Annotated[Auto | int, BeforeValidator(_folds)] = "auto"
    """0 decides on the validation images. 2 or more decides on all training and validation images, each held out once
    from a training and a head of its own, which takes as many times longer. `auto` takes 5 where validation has fewer
    than 100 independent images or groups; with `mode: auto` also where it has fewer than 1,000, unless only 0 fits into
    `budget_minutes`."""

    refit: Auto | bool = "auto"
    """Whether a kept model is trained again, for as many epochs, on training and validation images together. `auto`:
    only on cached maps (`layers: last_stage`), where it takes little time."""

    init: Literal["pretrained", "scratch"] = "pretrained"
    """`scratch` trains all layers from random weights, whatever `layers` says, for comparison."""

    layers: Literal["all", "last_stage", "norm"] = "last_stage"
    """Which layers of the backbone are trained: `all`; `last_stage`, on cached maps of the frozen layers before it,
    which is much faster; `norm`, the scale and shift of the norm layers. The last layer is always trained."""

    views: Auto | Annotated[int, Field(ge=0)] = "auto"
    """For `last_stage`: augmented views of each training image, whose maps are cached; an epoch learns from one of
    them. `auto`: one per epoch; 0: the images without augmentation."""

    epochs: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Passes over the training images; `auto` shows about 15,000 images (60,000 from scratch), each 4 to 50 times (15
    to 100)."""

    patience: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Training ends after this many epochs without a better loss on the held-out fifth of the training images; `auto`:
    a third of all, 5 at least."""

    batch_size: int = Field(32, ge=2)
    """Images per step, of all processes together."""

    accumulate: int = Field(1, ge=1)
    """Into how many parts a step's images are divided; more parts need less memory. When memory runs out, the number is
    doubled automatically."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`sgd` uses Nesterov momentum of 0.9."""

    learning_rate: Auto | Annotated[float, Field(gt=0)] = "auto"
    """The last layer's peak rate, reached after the warm-up and followed by a cosine decay. `auto`: on cached maps
    (`layers: last_stage`), the best of four rates around the default, by short trainings; otherwise the default. It is
    1e-3 for AdamW and 1e-2 for SGD with 32 images per step, 1e-5 and 1e-4 for transformers, 2e-3 and 1e-1 from
    scratch."""

    layer_decay: Auto | Annotated[float, Field(gt=0, le=1)] = "auto"
    """Each layer's rate is this times the rate of the layer above it; from scratch, all layers have the same rate.
    `auto` is 0.9, and 0.85 from 20,000 training images on."""

    unfreeze: Literal["at_once", "gradual"] = "at_once"
    """`gradual` trains the last layer first and adds the others one by one; in the second half it trains all."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps during which the rate rises."""

    weight_decay: float = Field(0.02, ge=0)
    """Applied to matrices and filters, not to biases and norm layers."""

    clip_norm: float = Field(1.0, ge=0)
    """The largest norm of a step's gradient, which is scaled down to it; 0: no limit."""

    ema: Auto | Annotated[float, Field(ge=0, lt=1)] = "auto"
    """How much of the moving average of the weights remains at each step; the average is what is validated and kept.
    `auto`: an average over about one epoch; 0: the weights themselves."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each label that is spread over all classes."""

    batch_norm: Literal["auto", "frozen", "running"] = "auto"
    """`frozen` keeps the statistics of pre-training, which is better for small data and nearly twice as fast; `running`
    updates them. `auto`: `running` from scratch, otherwise `frozen`."""

    mixup: Auto | Annotated[float, Field(ge=0)] = "auto"
    """Parameter of the Beta distribution by which two images and their labels are mixed; 0: no mixup. `auto`: 0.1 from
    20,000 training images on, from scratch 0.2."""

    cutmix: Auto | Annotated[float, Field(ge=0)] = "auto"
    """The same for pasting a box of another image; if both are set, each pair gets one of them. `auto`: from scratch
    1.0 from 20,000 training images on."""

    augment: Recipe = "standard"
    """Random augmentation: `none`, `light`, `standard`, `strong`, or a list of albumentations steps; the contact sheet
    shows its effect."""

    flip: bool = True
    """Whether the named recipes flip images at random; set false where left and right differ in meaning."""

    precision: Literal["auto", "f32", "bf16"] = "auto"
    """`auto`: bf16 autocast on a GPU and on processors with AMX, otherwise f32."""

    processes: int = Field(0, ge=0)
    """Processes that share each step's images; 0: one per GPU, or one."""

    cache_gb: float = Field(8.0, ge=0)
    """Disk space, in GB, for decoded and resized images (those that do not fit are decoded in every epoch), or for
    feature maps (`views: auto` makes no more views than fit)."""

    checkpoint_every: float = Field(5.0, gt=0)
    """Minutes between checkpoints, and thus the most that a killed training loses; each epoch ends with one too."""

    seed: int = 0
    """Seed of the order of the images, their augmentation, and everything else that is random."""

    @property
    def refits(self) -> bool:
        """Whether a kept model is trained again on all images."""
        return self.trained == "last_stage" if self.refit == "auto" else self.refit

    @property
    def trained(self) -> Literal["all", "last_stage", "norm"]:
        """The layers that are trained; from scratch all of them, as frozen random layers are useless."""
        return "all" if self.init == "scratch" else self.layers
