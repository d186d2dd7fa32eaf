"""What `graft rank` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .study import aligned, end_lines

HEADINGS = ("backbone", "accuracy", "interval", "log loss", "p", "images/s", "MB", "features", "front")


def print_ranking(found: dict[str, Any]) -> None:
    """The table, what could not be ranked, and a recommendation."""
    counts = found["images"]
    print(f"{counts['train']:,} training and {counts['val']:,} validation images", end="; ")
    print(f"heads compared on {found['held_out']:,} images that they were not trained on\n")
    for line in aligned([HEADINGS, *(_cells(row) for row in found["candidates"])]):
        print(line)
    print(f"\n{'p':<9} from an exact McNemar test against the first candidate, on the same images")
    for line in _speeds(found["candidates"]):
        print(line)
    for line in end_lines(found, found["failed"]):
        print(line)
    print()
    for line in advice(found):
        print(line)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["backbone"],
        f"{row['accuracy']:.1%}",
        f"{row['accuracy_low']:.1%} to {row['accuracy_high']:.1%}",
        f"{row['log_loss']:.3f}",
        f"{row['p_against_best']:.2g}",
        f"{row['images_per_second']:,.1f}",
        f"{row['megabytes']:,.1f}",
        f"{row['dimension']:,}",
        "*" if row["on_front"] else "",
    )


def _speeds(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What images/s was measured on: one line if it is the same for all."""
    how = {row["backbone"]: row["measured"] for row in rows}
    if len(set(how.values())) == 1:
        yield f"{'images/s':<9} from files to features, measured on {next(iter(how.values()))}"
    else:
        yield from (f"{'images/s':<9} {name}: measured on {measured}" for name, measured in how.items())


def advice(found: dict[str, Any]) -> Iterator[str]:
    """What to put into params.yaml for the most accurate candidate, and for the fastest that is as good."""
    best, quick = found["most_accurate"], found["fastest_as_good"]
    rows = {row["backbone"]: row for row in found["candidates"]}
    accuracy = rows[best["backbone"]]["accuracy"]
    equals = sum(row["accuracy"] == accuracy for row in rows.values()) - 1
    others = f"; of {equals + 1} with this accuracy it has the lowest log loss" if equals else ""
    yield f"The most accurate is {best['backbone']} ({accuracy:.1%}{others})."
    yield from _lines(best["params"])
    if quick["backbone"] == best["backbone"]:
        if len(rows) > 1:
            fastest = all(
                row["images_per_second"] <= rows[best["backbone"]]["images_per_second"] for row in rows.values()
            )
            yield "It is the fastest as well." if fastest else "All faster candidates are significantly worse."
        return
    row, speed = rows[quick["backbone"]], rows[best["backbone"]]["images_per_second"]
    yield (
        f"The fastest candidate that is not significantly worse is {quick['backbone']} ({row['accuracy']:.1%}, "
        f"p = {row['p_against_best']:.2g}, {row['images_per_second'] / speed:.1f} times as fast)."
    )
    yield from _lines(quick["params"])


def _lines(params: dict[str, Any]) -> Iterator[str]:
    """Lines of YAML."""
    if not params:
        yield "params.yaml already has it.\n"
        return
    yield "To use it, put this into params.yaml:\n\nfeatures:"
    yield from (f"  {key}: {'null' if value is None else value}" for key, value in params.items())
    yield ""
