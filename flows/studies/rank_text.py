"""What `graft rank` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graft.tasks.common.data.task import LOSS, Metric, metric_named

from .study import aligned, end_lines


def print_ranking(found: dict[str, Any]) -> None:
    """The table, what could not be ranked, and a recommendation."""
    counts, metric = found["images"], metric_named(found["metric"], found["task"])
    groups = f" in {found['units']:,} groups" if found["units"] < found["held_out"] else ""
    print(f"{counts['train']:,} training and {counts['val']:,} validation images", end="; ")
    print(f"heads compared on {found['held_out']:,} images{groups} that they were not trained on\n")
    loss = LOSS[found["task"]]
    headings = (
        "backbone", metric.title, "interval", loss.replace("_", " "), "behind", "at most", "as good", "images/s", "MB",
        "features", "front",
    )  # fmt: skip
    for line in aligned([headings, *(_cells(row, metric, loss) for row in found["candidates"])]):
        print(line)
    print(f"\n{'behind':<9} the first candidate; at most: at {found['confidence']:.0%} confidence, of all candidates")
    print(f"{'as good':<9} not worse by more than {_points(found['margin'], metric)} (--margin)")
    for line in _speeds(found["candidates"]):
        print(line)
    for line in end_lines(found, found["failed"]):
        print(line)
    print()
    for line in advice(found):
        print(line)


def _cells(row: dict[str, Any], metric: Metric, loss: str) -> tuple[str, ...]:
    best = row["as_good"] == "best"
    value, low, high = (metric.text(row[key]) for key in metric.keys)
    return (
        row["backbone"],
        value,
        f"{low} to {high}",
        f"{row[loss]:.3f}",
        "" if best else metric.text(row["behind"]),
        "" if best else metric.text(row["behind_at_most"]),
        "" if best else row["as_good"],
        f"{row['images_per_second']:,.1f}",
        f"{row['megabytes']:,.1f}",
        f"{row['dimension']:,}",
        "*" if row["on_front"] else "",
    )


def _points(value: float, metric: Metric) -> str:
    return f"{100 * value:g} points" if metric.percent else f"{value:g}"


def _speeds(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What images/s was measured on: one line if it is the same for all."""
    how = {row["backbone"]: row["measured"] for row in rows}
    if len(set(how.values())) == 1:
        yield f"{'images/s':<9} from files to features, measured on {next(iter(how.values()))}"
    else:
        yield from (f"{'images/s':<9} {name}: measured on {measured}" for name, measured in how.items())


def advice(found: dict[str, Any]) -> Iterator[str]:
    """What to put into params.yaml for the best candidate, for the fastest that is as good, and for a combination."""
    best, quick = found["best"], found["fastest_as_good"]
    metric = metric_named(found["metric"], found["task"])
    rows = {row["backbone"]: row for row in found["candidates"]}
    first = rows[best["backbone"]]
    equals = sum(row[metric.key] == first[metric.key] for row in rows.values()) - 1
    others = f"; of {equals + 1} with this {metric.title} it has the lowest loss" if equals else ""
    yield f"The best is {best['backbone']} ({metric.text(first[metric.key])} {metric.title}{others})."
    yield from _lines(best["params"])
    yield from _faster(rows, first, rows[quick["backbone"]], metric, found["margin"])
    if quick["backbone"] != best["backbone"]:
        yield from _lines(quick["params"])
    yield from _combination(found, metric)


def _faster(
    rows: dict[str, dict[str, Any]], best: dict[str, Any], quick: dict[str, Any], metric: Metric, margin: float
) -> Iterator[str]:
    """The fastest that is as good, and faster ones of which the images do not tell."""
    speed, margin_text = best["images_per_second"], _points(margin, metric)
    faster = [row for row in rows.values() if row["images_per_second"] > quick["images_per_second"]]
    unclear = min(
        (row for row in faster if row["as_good"] == "too few"), key=lambda row: float(row["behind"]), default=None
    )
    if quick is not best:
        yield (
            f"The fastest candidate that is as good is {quick['backbone']}: {metric.text(quick[metric.key])}, at most "
            f"{metric.text(quick['behind_at_most'])} behind, {quick['images_per_second'] / speed:.1f} times as fast."
        )
    elif len(rows) > 1 and not faster:
        yield "It is the fastest as well."
    elif faster and unclear is None:
        yield f"All faster candidates are worse by more than {margin_text}."
    if unclear is not None:
        times = f"{unclear['images_per_second'] / speed:.1f} times as fast"
        more = f"; about {unclear['more_images']:,} more images would" if unclear["more_images"] else ""
        yield f"Too few images to tell whether {unclear['backbone']}, {times}, is as good{more}."


def _combination(found: dict[str, Any], metric: Metric) -> Iterator[str]:
    combined = found["combination"]
    if combined is None:
        if len(found["candidates"]) > 1:
            yield "No combination of candidates lowers the loss beyond chance."
        return
    first, *others = combined["backbones"]
    gain, least = (_points(round(combined[key], 4), metric) for key in ("gain", "gain_at_least"))
    yield (
        f"Together, {first} and {' and '.join(others)} have {metric.text(combined['value'])} {metric.title}, {gain} "
        f"more than one alone (at least {least}), for {combined['cost']:.1f} times the time of "
        f"{found['best']['backbone']}. "
        "This is the mean of their heads, chosen on some of the images and compared on the others."
    )
    yield from _lines(combined["params"])


def _lines(params: dict[str, Any]) -> Iterator[str]:
    """Lines of YAML."""
    if not params:
        yield "params.yaml already has it.\n"
        return
    yield "To use it, put this into params.yaml:\n\nfeatures:"
    yield from (f"  {key}: {_yaml(value)}" for key, value in params.items())
    yield ""


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return "null" if value is None else str(value)
