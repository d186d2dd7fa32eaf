"""The plot of a comparison: the metric against the number of images, one line per method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .comparing import TITLES, Point
from .held import Held

matplotlib.use("agg")

COLOURS = {"head": "#2a7f62", "last_stage": "#d97706", "all": "#1d4ed8", "scratch": "#9aa5b1"}
MARKS = {"head": "o", "last_stage": "s", "all": "^", "scratch": "D"}


def comparing_picture(found: Sequence[Point], judged: Held, path: Path) -> None:
    """The metric of each method, with its interval."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for method in dict.fromkeys(point.method for point in found):
        line = [point for point in found if point.method == method]
        x, y = [point.images for point in line], [point.value for point in line]
        reach = [
            [max(0.0, p.value - p.low) for p in line],
            [max(0.0, p.high - p.value) for p in line],
        ]
        axes.errorbar(
            x, y, yerr=reach, label=TITLES[method], color=COLOURS[method], marker=MARKS[method], capsize=3,
            linewidth=1.8, elinewidth=1, markersize=6,
        )  # fmt: skip
    axes.set_xscale("log")
    sizes = sorted({point.images for point in found})
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if judged.named.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set(
        xlabel="training images",
        ylabel=f"{judged.named.title} on {len(judged.target):,} validation images, {judged.confidence:.0%} interval",
        title="Training methods by number of training images",
    )
    axes.grid(color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110, metadata={"Software": None})
