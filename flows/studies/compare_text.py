"""What `graft compare` prints, and its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.common.data.task import MAIN
from tasks.studies.comparing import TITLES

from .rank_text import aligned

HEADINGS = ("method", "images", "figure", "interval", "minutes", "images seen", "epochs")


def print_comparison(found: dict[str, Any]) -> None:
    """The table, where the lines cross, and what to use."""
    print(_what(found) + "\n")
    for line in aligned([_headings(found), *(_cells(row, found) for row in found["points"])]):
        print(line)
    print()
    for line in found["crossings"]:
        print(line)
    print(found["advice"])
    print()
    for name, reason in found["left_out"].items():
        print(f"{'left out':<9} {name}: {reason}")
    print(f"{'plot':<9} {found['plot']}\n{'figures':<9} {found['file']}")


def _what(found: dict[str, Any]) -> str:
    height, width = found["image_size"]
    return (
        f"{found['backbone']} at {width} x {height} pixels; {found['train_images']:,} training images, all judged on "
        f"{found['judged']:,} validation images that no training saw"
    )


def _headings(found: dict[str, Any]) -> tuple[str, ...]:
    return tuple(MAIN[found["task"]].title if name == "figure" else name for name in HEADINGS)


def _cells(row: dict[str, Any], found: dict[str, Any]) -> tuple[str, ...]:
    text = MAIN[found["task"]].text
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
    """Markdown; `picture` lies beside it."""
    return "\n".join(_page(found, picture)) + "\n"


def _page(found: dict[str, Any], picture: str) -> Iterator[str]:
    yield "# What each way to learn makes of these images\n"
    yield f"{_what(found)}. Made by `graft compare`.\n"
    yield f"![{MAIN[found['task']].title} against the number of images]({picture})\n"
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
        f"Means of up to {seeds} seeds; intervals of {found['confidence']:.0%} over images and seeds. Minutes are of "
        "one training: a head's begin with features that are there, the others' with the images. Images seen are "
        "training images times epochs."
    )
    yield from (f"- left out: {name}: {reason}" for name, reason in found["left_out"].items())
