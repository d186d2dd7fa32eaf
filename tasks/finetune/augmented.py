"""A picture of what the network sees in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..common.augmentation.augment import Augment
from ..common.images.contact_sheet import save, visible
from ..common.images.decode import Pixels
from ..common.images.reading import Reading
from ..common.images.transform import EvalTransform, load

VIEWS = 6
"""Epochs shown of each image."""


def augmented_sheet(
    images: Sequence[tuple[Path, str, str]],
    augment: Augment,
    transform: EvalTransform,
    reading: Reading,
    epochs: int,
    path: Path,
) -> None:
    """Draws a row an image: as it is evaluated, and as it is seen in the first epochs.

    Args:
        images: (file, image_id, what to call it) of each.
        epochs: of training; no more are shown.

    Raises:
        DataError: a file is missing or damaged.
    """
    shown = min(VIEWS, epochs)
    figure = Figure(figsize=(1.6 * (shown + 1), 1.75 * len(images) + 0.7), layout="constrained")
    figure.suptitle("Augmented images, as the network sees them in training", parse_math=False)
    for row, (file, image_id, name) in zip(figure.subplots(len(images), shown + 1, squeeze=False), images, strict=True):
        resized = augment.resized(file, image_id)
        seen: list[Pixels] = [augment.view(resized, image_id, epoch) for epoch in range(shown)]
        for place, (axes, pixels) in enumerate(
            zip(row, [load(file, image_id, transform, reading), *seen], strict=True)
        ):
            axes.axis("off")
            axes.imshow(visible(pixels))
            axes.set_title(f"epoch {place}" if place else f"{name}, as evaluated", fontsize=8, parse_math=False)
    save(figure, path)
