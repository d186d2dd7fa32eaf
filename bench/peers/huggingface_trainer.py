"""Hugging Face's recipe for image classification: run_image_classification.py's transforms and the settings of its
README (AdamW, rate 2e-5, five epochs, eight images a step), by the Trainer, with timm's network in transformers' own
wrapper."""

from __future__ import annotations

from pathlib import Path
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

from .course import STEPS, WARM, Course, Laps, Plan, arguments
from .figures import BATCH

EPOCHS, RATE, THEIR_BATCH = 5, 2e-5, 8


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
        self.x, self.classes = torch.rand(3, plan.size, plan.size), len(plan.classes)

    def __len__(self) -> int:
        return BATCH * (WARM + STEPS)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"pixel_values": self.x, "labels": place % self.classes}


class Log(TrainerCallback):  # type: ignore[misc]
    def __init__(self, course: Course, laps: Laps) -> None:
        self.course, self.laps = course, laps

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.laps.step()

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
    with TemporaryDirectory() as folder:
        trained(plan, what, course, model, Path(folder))


def trained(plan: Plan, what: str, course: Course, model: Any, folder: Path) -> None:
    rate = what == "rate"
    settings = TrainingArguments(
        output_dir=str(folder), report_to=[], save_strategy="no", eval_strategy="no" if rate else "epoch",
        per_device_train_batch_size=BATCH if rate else THEIR_BATCH, per_device_eval_batch_size=BATCH,
        num_train_epochs=1 if rate else EPOCHS, learning_rate=RATE, remove_unused_columns=False, use_cpu=True,
        dataloader_num_workers=0 if rate else 2, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    augmented, plain = transforms(plan, model)
    laps = Laps(BATCH)
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=Noise(plan) if rate else Pictures(plan.train, augmented),
        eval_dataset=None if rate else Pictures(plan.held, plain),
        compute_metrics=lambda p: {"accuracy": float(np.mean(np.argmax(p.predictions, axis=1) == p.label_ids))},
        callbacks=[Log(course, laps)],
    )
    trainer.train()
    course.write(laps.rate if rate else None, transformers=transformers.__version__, epochs=str(EPOCHS))


if __name__ == "__main__":
    main()
