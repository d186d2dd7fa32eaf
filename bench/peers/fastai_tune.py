"""fastai's `fine_tune` with its defaults: one epoch of the head alone, then five of all layers by one-cycle with
discriminative rates, 64 images a step. `vision_learner` on timm's network, `Resize` and `aug_transforms` as in fastai's
own examples (fastai/fastai, fastai/vision/learner.py and callback/schedule.py); an image is resized to 8/7 of the size
first, not to twice as much as there, which costs a processor less."""

from __future__ import annotations

from typing import Any

import fastai
import timm
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Recorder
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    Normalize,
    Resize,
    TensorCategory,
    TensorImage,
    accuracy,
    aug_transforms,
    vision_learner,
)
from safetensors.torch import load_file

from .course import WARM, Course, Laps, Plan, arguments
from .measurements import BATCH

EPOCHS = 5
THEIR_BATCH = 64


class Log(Callback):  # type: ignore[misc]
    order = Recorder.order + 1  # when this epoch's metrics are there

    def __init__(self, course: Course) -> None:
        self.course = course

    def after_epoch(self) -> None:
        self.course.epoch(float(self.recorder.values[-1][-1]))


class Clock(Callback):  # type: ignore[misc]
    """Ends training when there were enough steps."""

    def __init__(self, laps: Laps) -> None:
        self.laps = laps

    def after_batch(self) -> None:
        if self.training:
            self.laps.step()
            if self.laps.enough:
                raise CancelFitException


def loaders(plan: Plan, batch: int) -> Any:
    labels = dict([*plan.train, *plan.held])
    held = {file for file, _ in plan.held}
    files = [file for file, _ in [*plan.train, *plan.held]]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: files,
        get_y=lambda file: plan.classes[labels[file]],
        splitter=lambda items: (
            [n for n, file in enumerate(items) if file not in held],
            [n for n, file in enumerate(items) if file in held],
        ),
        item_tfms=Resize(round(plan.size * 8 / 7)),
        batch_tfms=aug_transforms(size=plan.size, min_scale=0.75),
    )
    return block.dataloaders(None, bs=batch, num_workers=2, device=torch.device("cpu"))


def learner(plan: Plan, data: Any) -> Any:
    """Not `pretrained`, which would fetch weights; what else it brings, is brought here."""
    found = vision_learner(data, plan.backbone, metrics=accuracy, pretrained=False)
    told = timm.get_pretrained_cfg(plan.backbone)
    data.add_tfms([Normalize.from_stats(told.mean, told.std, cuda=False)], "after_batch")
    missing = found.model[0].model.load_state_dict(load_file(plan.weights), strict=False).missing_keys
    if missing:
        raise SystemExit(f"the body lacks weights: {missing[:5]}")
    return found


def main() -> None:
    plan, what, course = arguments(__doc__)
    torch.manual_seed(42)
    if what == "accuracy":
        accurate(plan, course)
        return
    found = learner(plan, loaders(plan, BATCH))
    found.unfreeze()
    from_files = rate(plan, found)
    found.dls.train = Still(found.dls.train, plan)
    course.write(pure=rate(plan, found), from_files=from_files, fastai=fastai.__version__)


def accurate(plan: Plan, course: Course) -> None:
    found, epochs = learner(plan, loaders(plan, THEIR_BATCH)), plan.epochs or EPOCHS
    with found.no_bar(), found.no_logging():
        found.fine_tune(epochs, cbs=Log(course))
    course.write(fastai=fastai.__version__, epochs=f"1 + {epochs}")


def rate(plan: Plan, found: Any) -> float:
    laps = Laps(BATCH, plan.steps)
    with found.no_bar(), found.no_logging():
        found.fit(WARM + plan.steps, cbs=Clock(laps))
    return laps.rate


class Still:
    """A loader of images that are there already, as many batches as are wanted."""

    def __init__(self, loader: Any, plan: Plan) -> None:
        x = TensorImage(torch.rand(BATCH, 3, plan.size, plan.size))
        batch = (x, TensorCategory(torch.arange(BATCH) % len(plan.classes)))
        self._loader, self._batches = loader, [batch] * (WARM + plan.steps)

    def __iter__(self) -> Any:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


if __name__ == "__main__":
    main()
