"""What `graft compare` prints, and its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graft.tasks.common.data.task import Metric, metric_named
from graft.tasks.studies.comparing import TITLES

from .study import aligned, end_lines

HEADINGS = ("method", "images", "metric", "interval", "minutes", "images seen", "epochs")


def print_comparison(found: dict[str, Any]) -> None:
    """The table, where the methods cross, and a recommendation."""
    print(_what(found) + "\n")
    for line in aligned([_headings(found), *(_cells(row, found) for row in found["points"])]):
        print(line)
    print()
    for line in found["crossings"]:
        print(line)
    print(found["advice"])
    print()
    for line in end_lines(found, found["left_out"]):
        print(line)


def _what(found: dict[str, Any]) -> str:
    size = found["image_size"]
    sizes = ", ".join(f"{width} x {height}" for height, width in (size if isinstance(size[0], list) else [size]))
    return (
        f"{found['backbone']} at {sizes} pixels; {found['train_images']:,} training images, all methods "
        f"evaluated on {found['judged']:,} validation images that no training used"
    )


def _metric(found: dict[str, Any]) -> Metric:
    return metric_named(found["metric"], found["task"])


def _headings(found: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_metric(found).title if name == "metric" else name for name in HEADINGS)


def _cells(row: dict[str, Any], found: dict[str, Any]) -> tuple[str, ...]:
    text = _metric(found).text
    return (
        row["method"],
        f"{row['images']:,}",
        text(row["value"]),
        f"{text(row['low'])} to {text(row['high'])}",
        f"{row['seconds'] / 60:.2f}",
        f"{row['seen']:,}",
        f"{row['epochs']:.0f}",
    )


def page(found: dict[str, Any], picture: str) -> str:
    """Markdown; `picture` is the plot beside it."""
    return "\n".join(_page(found, picture)) + "\n"


def _page(found: dict[str, Any], picture: str) -> Iterator[str]:
    yield "# Frozen backbone, fine-tuning and training from scratch compared\n"
    yield f"{_what(found)}. Made by `graft compare`.\n"
    yield f"![{_metric(found).title} against the number of images]({picture})\n"
    yield from (f"- {line}" for line in found["crossings"])
    yield f"\n**{found['advice']}**\n"
    yield "| " + " | ".join(_headings(found)) + " |"
    yield "| --- |" + " ---: |" * (len(HEADINGS) - 1)
    for row in found["points"]:
        first, *others = _cells(row, found)
        yield "| " + " | ".join([f"`{first}`: {TITLES[first]}", *others]) + " |"
    yield ""
    seeds = max(row["seeds"] for row in found["points"])
    yield (
        f"Means of up to {seeds} seeds; {found['confidence']:.0%} intervals over images and seeds. Minutes are for "
        "one training: for a head from existing features, for the others from the images. Images seen are training "
        "images times epochs."
    )
    yield from (f"- left out: {name}: {reason}" for name, reason in found["left_out"].items())
