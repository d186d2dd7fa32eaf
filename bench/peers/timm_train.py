"""The loop of timm's script train.py (huggingface/pytorch-image-models), with its defaults: SGD with momentum 0.9, rate
0.1 for 256 images a step, weight decay 2e-5, cosine, label smoothing 0.1, its own augmentation, eager fp32. 32 images a
step, as in the fine-tuning among the examples of its page "Scripts". Fewer epochs than its 300, and one to warm up of
its five: fine-tuning needs no more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.utils.data import Dataset

from .course import Course, Laps, Plan, arguments
from .measurements import BATCH

EPOCHS = 10
WORKERS = 2


class Pictures(Dataset[Any]):
    def __init__(self, listed: list[tuple[str, int]]) -> None:
        self.listed, self.transform = listed, None

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        file, label = self.listed[place]
        picture = Image.open(file).convert("RGB")
        return (self.transform(picture) if self.transform else picture), label


def build(plan: Plan) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(plan.backbone, pretrained=False, num_classes=len(plan.classes))
    model.load_state_dict(load_file(plan.weights), strict=False)
    return model


def loaders(plan: Plan, model: torch.nn.Module) -> tuple[Any, Any]:
    config = timm.data.resolve_model_data_config(model)
    make = partial(
        create_loader, input_size=(3, plan.size, plan.size), batch_size=BATCH, use_prefetcher=False,
        num_workers=WORKERS, mean=config["mean"], std=config["std"], interpolation=config["interpolation"],
        crop_pct=config["crop_pct"], device=torch.device("cpu"),
    )  # fmt: skip
    return (
        make(Pictures(plan.train), is_training=True, color_jitter=0.4, hflip=0.5, scale=(0.08, 1.0)),
        make(Pictures(plan.held), is_training=False),
    )


def step(model: torch.nn.Module, optimizer: Any, loss: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss(model(x), y).backward()
    optimizer.step()


def accuracy(model: torch.nn.Module, loader: Any) -> float:
    model.eval()
    with torch.inference_mode():
        right = [(model(x).argmax(dim=1) == y).float() for x, y in loader]
    return float(torch.cat(right).mean())


def main() -> None:
    plan, what, course = arguments(__doc__)
    torch.manual_seed(42)
    model = build(plan)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1 * BATCH / 256, weight_decay=2e-5, momentum=0.9)
    loss = LabelSmoothingCrossEntropy(0.1)
    train, held = loaders(plan, model)
    if what == "rate":
        take = partial(step, model, optimizer, loss)
        model.train()
        still = [(torch.rand(BATCH, 3, plan.size, plan.size), torch.arange(BATCH) % len(plan.classes))]
        course.write(pure=rate(plan, still, take), from_files=rate(plan, train, take), timm=timm.__version__)
        return
    accurate(plan, course, model, optimizer, loss, train, held)


def rate(plan: Plan, batches: Any, take: Callable[[torch.Tensor, torch.Tensor], None]) -> float:
    laps = Laps(BATCH, plan.steps)
    while True:
        for x, y in batches:
            take(x, y)
            laps.step()
            if laps.enough:
                return laps.rate


def accurate(
    plan: Plan, course: Course, model: torch.nn.Module, optimizer: Any, loss: Any, train: Any, held: Any
) -> None:
    count = plan.epochs or EPOCHS
    scheduler, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=count, warmup_epochs=min(1, count - 1), warmup_lr=1e-5
    )
    for epoch in range(epochs):
        model.train()
        for x, y in train:
            step(model, optimizer, loss, x, y)
        scheduler.step(epoch + 1)
        course.epoch(accuracy(model, held))
    course.write(timm=timm.__version__, epochs=str(epochs))


if __name__ == "__main__":
    main()
