"""Hugging Face's recipe for image classification, by the Trainer: the transforms of run_image_classification.py
(huggingface/transformers, examples/pytorch/image-classification), five epochs and eight images a step as in its
README, and AdamW with a linear fall from 5e-5, which is the Trainer's default and what Hugging Face's article on timm's
networks takes; the README's 2e-5 is for a ViT. The network is timm's, in transformers' own wrapper."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)
from transformers import (
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from .course import WARM, Course, Laps, Plan, arguments
from .measurements import BATCH

EPOCHS, RATE, THEIR_BATCH, WORKERS = 5, 5e-5, 8, 2


class Pictures(torch.utils.data.Dataset[Any]):
    def __init__(self, listed: list[tuple[str, int]], transform: Compose) -> None:
        self.listed, self.transform = listed, transform

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, place: int) -> dict[str, Any]:
        file, label = self.listed[place]
        return {"pixel_values": self.transform(Image.open(file).convert("RGB")), "labels": label}


class Noise(torch.utils.data.Dataset[Any]):
    """Images that cost nothing to load."""

    def __init__(self, plan: Plan) -> None:
        self.x, self.classes, self.steps = torch.rand(3, plan.size, plan.size), len(plan.classes), plan.steps

    def __len__(self) -> int:
        return BATCH * (WARM + self.steps)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"pixel_values": self.x, "labels": place % self.classes}


class Clock(TrainerCallback):  # type: ignore[misc]
    def __init__(self, laps: Laps) -> None:
        self.laps = laps

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.laps.step()


class Log(TrainerCallback):  # type: ignore[misc]
    def __init__(self, course: Course) -> None:
        self.course = course

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        self.course.epoch(metrics["eval_accuracy"])


def build(plan: Plan) -> Any:
    config = TimmWrapperConfig(architecture=plan.backbone, num_labels=len(plan.classes))
    model = TimmWrapperForImageClassification(config)
    missing = model.timm_model.load_state_dict(load_file(plan.weights), strict=False).missing_keys
    if any(not name.startswith("classifier") for name in missing):
        raise SystemExit(f"the wrapper lacks weights: {missing[:5]}")
    return model


def transforms(plan: Plan, model: Any) -> tuple[Compose, Compose]:
    config = timm.data.resolve_model_data_config(model.timm_model)
    normalize = Normalize(config["mean"], config["std"])
    size = plan.size
    return (
        Compose([RandomResizedCrop(size), RandomHorizontalFlip(), ToTensor(), normalize]),
        Compose([Resize(size), CenterCrop(size), ToTensor(), normalize]),
    )


def main() -> None:
    plan, what, course = arguments(__doc__)
    transformers.set_seed(42)
    model = build(plan)
    augmented, plain = transforms(plan, model)
    train, held = Pictures(plan.train, augmented), Pictures(plan.held, plain)
    with TemporaryDirectory() as folder:
        if what == "accuracy":
            accurate(plan, course, model, train, held, folder)
            return
        pure, from_files = rate(plan, model, Noise(plan), 0, folder), rate(plan, model, train, WORKERS, folder)
    course.write(pure=pure, from_files=from_files, transformers=transformers.__version__)


def settings(folder: str, **more: Any) -> Any:
    return TrainingArguments(
        output_dir=folder, report_to=[], save_strategy="no", learning_rate=RATE, remove_unused_columns=False,
        use_cpu=True, disable_tqdm=True, logging_strategy="no", per_device_eval_batch_size=BATCH, **more,
    )  # fmt: skip


def rate(plan: Plan, model: Any, images: Any, workers: int, folder: str) -> float:
    laps = Laps(BATCH, plan.steps)
    given = settings(
        folder, max_steps=WARM + plan.steps, per_device_train_batch_size=BATCH, dataloader_num_workers=workers,
        dataloader_drop_last=True,
    )  # fmt: skip
    Trainer(model=model, args=given, train_dataset=images, callbacks=[Clock(laps)]).train()
    return laps.rate


def accurate(plan: Plan, course: Course, model: Any, train: Any, held: Any, folder: str) -> None:
    epochs = plan.epochs or EPOCHS
    given = settings(
        folder, eval_strategy="epoch", num_train_epochs=epochs, per_device_train_batch_size=THEIR_BATCH,
        dataloader_num_workers=WORKERS,
    )  # fmt: skip
    Trainer(
        model=model,
        args=given,
        train_dataset=train,
        eval_dataset=held,
        compute_metrics=lambda p: {"accuracy": float(np.mean(np.argmax(p.predictions, axis=1) == p.label_ids))},
        callbacks=[Log(course)],
    ).train()
    course.write(transformers=transformers.__version__, epochs=str(epochs))


if __name__ == "__main__":
    main()
