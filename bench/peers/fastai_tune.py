"""fastai's `fine_tune` with its defaults: one epoch of the head alone, then five of all layers by one-cycle with
discriminative rates, `aug_transforms`, 64 images a step."""

from __future__ import annotations

from typing import Any

import fastai
import torch
from fastai.callback.core import Callback
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    Resize,
    accuracy,
    aug_transforms,
    vision_learner,
)
from safetensors.torch import load_file

from .course import Course, Laps, Plan, arguments
from .figures import BATCH

EPOCHS = 5
THEIR_BATCH = 64


class Log(Callback):  # type: ignore[misc]
    def __init__(self, course: Course) -> None:
        self.course = course

    def after_epoch(self) -> None:
        self.course.epoch(float(self.recorder.values[-1][-1]))


class Clock(Callback):  # type: ignore[misc]
    def __init__(self, laps: Laps) -> None:
        self.laps = laps

    def after_batch(self) -> None:
        if self.training:
            self.laps.step()


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
    found = vision_learner(data, plan.backbone, metrics=accuracy, pretrained=False)
    missing = found.model[0].model.load_state_dict(load_file(plan.weights), strict=False).missing_keys
    if missing:
        raise SystemExit(f"the body lacks weights: {missing[:5]}")
    return found


def main() -> None:
    plan, what, course = arguments(__doc__)
    torch.manual_seed(42)
    if what == "accuracy":
        found = learner(plan, loaders(plan, THEIR_BATCH))
        with found.no_bar(), found.no_logging():
            found.fine_tune(EPOCHS, cbs=Log(course))
        course.write(fastai=fastai.__version__, epochs=f"1 + {EPOCHS}")
        return
    found, laps = learner(plan, loaders(plan, BATCH)), Laps(BATCH)
    found.unfreeze()
    x, y = torch.rand(BATCH, 3, plan.size, plan.size), torch.arange(BATCH) % len(plan.classes)
    found.dls.train = Again(found.dls.train, (x, y))
    with found.no_bar(), found.no_logging():
        found.fit(1, cbs=[Clock(laps), NoValidation()])
    course.write(laps.rate, fastai=fastai.__version__)


class NoValidation(Callback):  # type: ignore[misc]
    def before_validate(self) -> None:
        from fastai.callback.core import CancelValidException

        raise CancelValidException


class Again:
    """A loader that gives the same images, which cost nothing to load, until there have been enough steps."""

    def __init__(self, loader: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        from .course import STEPS, WARM

        self._loader, self._batches = loader, [batch] * (WARM + STEPS)

    def __iter__(self) -> Any:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


if __name__ == "__main__":
    main()
