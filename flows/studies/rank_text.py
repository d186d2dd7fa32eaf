"""What `graft rank` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HEADINGS = ("backbone", "accuracy", "interval", "log loss", "p", "images/s", "MB", "features", "front")


def print_ranking(found: dict[str, Any]) -> None:
    """The table, what could not be ranked, and what to put into params.yaml."""
    counts = found["images"]
    print(f"{counts['train']:,} training and {counts['val']:,} validation images", end="; ")
    print(f"heads compared on {found['held_out']:,} that they had not learned\n")
    for line in aligned([HEADINGS, *(_cells(row) for row in found["candidates"])]):
        print(line)
    print(f"\n{'p':<9} of an exact McNemar test against the first, on the same images")
    for line in _speeds(found["candidates"]):
        print(line)
    for name, reason in found["failed"].items():
        print(f"{'left out':<9} {name}: {reason}")
    print(f"{'plot':<9} {found['plot']}\n{'figures':<9} {found['file']}")
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


def aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        yield "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        ).rstrip()


def _speeds(rows: list[dict[str, Any]]) -> Iterator[str]:
    """On what images/s was measured: once, if for all alike."""
    how = {row["backbone"]: row["measured"] for row in rows}
    if len(set(how.values())) == 1:
        yield f"{'images/s':<9} from files to features, on {next(iter(how.values()))}"
    else:
        yield from (f"{'images/s':<9} {name}: on {measured}" for name, measured in how.items())


def advice(found: dict[str, Any]) -> Iterator[str]:
    """What to put into params.yaml for the most accurate, and for the fastest that is as good; nothing is changed."""
    best, quick = found["most_accurate"], found["fastest_as_good"]
    rows = {row["backbone"]: row for row in found["candidates"]}
    accuracy = rows[best["backbone"]]["accuracy"]
    equals = sum(row["accuracy"] == accuracy for row in rows.values()) - 1
    others = f", and of {equals + 1} such the one of the least log loss" if equals else ""
    yield f"The most accurate is {best['backbone']} ({accuracy:.1%}{others})."
    yield from _lines(best["params"])
    if quick["backbone"] == best["backbone"]:
        if len(rows) > 1:
            fastest = all(
                row["images_per_second"] <= rows[best["backbone"]]["images_per_second"] for row in rows.values()
            )
            yield "It is the fastest as well." if fastest else "All that are faster are significantly worse."
        return
    row, speed = rows[quick["backbone"]], rows[best["backbone"]]["images_per_second"]
    yield (
        f"The fastest that is not significantly worse is {quick['backbone']} ({row['accuracy']:.1%}, "
        f"p = {row['p_against_best']:.2g}, {row['images_per_second'] / speed:.1f} times as fast)."
    )
    yield from _lines(quick["params"])


def _lines(params: dict[str, Any]) -> Iterator[str]:
    """Of YAML."""
    if not params:
        yield "params.yaml names it already.\n"
        return
    yield "To use it, put into params.yaml:\n\nfeatures:"
    yield from (f"  {key}: {'null' if value is None else value}" for key, value in params.items())
    yield ""
