"""How a recipe of augmentation is written in params.yaml. `augment` makes it; this module imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

Name = Literal["none", "light", "standard", "strong"]

CLASS = "__class_fullname__"
"""Under which key albumentations writes a step's name."""


def _steps(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    nameless = [number for number, step in enumerate(steps, 1) if not isinstance(step.get(CLASS), str)]
    if nameless:
        raise ValueError(
            f"step {nameless[0]} has no `{CLASS}`, by which albumentations knows it; "
            f"write e.g. [{{{CLASS}: HorizontalFlip, p: 0.5}}]"
        )
    return steps


Recipe = Name | Annotated[list[dict[str, Any]], AfterValidator(_steps)]
"""A name, or the steps as `albumentations.to_dict` writes those of a `Compose`."""
