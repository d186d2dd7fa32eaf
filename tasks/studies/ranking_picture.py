"""The plot of a ranking: the metric against speed, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from .held import Held
from .ranking import Standing

matplotlib.use("agg")

GREY, GREEN = "#9aa5b1", "#2a7f62"
WIDE = 4.0
"""Speeds that differ by more than this factor are plotted on a logarithmic axis."""

OFFSETS = [
    (x, y) for reach in (1.0, 2.2, 3.6, 5.0) for x, y in ((9 * reach, 6 * reach), (9 * reach, -6 * reach),
    (-9 * reach, 6 * reach), (-9 * reach, -6 * reach))
]  # fmt: skip
"""Possible positions of a name, in points from its mark; among equally good ones the first is used."""


def ranking_picture(standings: Sequence[Standing], held: Held, path: Path) -> None:
    """The metric with its interval against images per second; the Pareto front is a line through green marks."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for one in standings:
        _mark(axes, one)
    axes.plot(*zip(*_ahead(standings), strict=True), color=GREEN, linewidth=1.2, zorder=1)
    _scale(axes, [one.probed.images_per_second for one in standings])
    axes.set(
        ylabel=f"{held.named.title} on {len(held.target):,} held-out images, {held.confidence:.0%} interval",
        title=f"{held.named.title[0].upper()}{held.named.title[1:]} against speed; the line is the Pareto front",
    )
    if held.named.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.grid(color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _name(figure, axes, standings)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _ahead(standings: Sequence[Standing]) -> list[tuple[float, float]]:
    """The points on the front, the slowest first."""
    return sorted((one.probed.images_per_second, one.probed.value) for one in standings if one.on_front)


def _mark(axes: Axes, one: Standing) -> None:
    found, colour = one.probed, GREEN if one.on_front else GREY
    reach = [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]
    axes.errorbar(
        found.images_per_second, found.value, yerr=reach,
        fmt="o", color=colour, ecolor=colour, elinewidth=1, capsize=3, markersize=7, zorder=2,
    )  # fmt: skip


def _scale(axes: Axes, speeds: list[float]) -> None:
    axes.set_xlabel("images per second, files to features")
    if max(speeds) > WIDE * min(speeds):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.margins(x=0.22, y=0.12)


def _name(figure: Figure, axes: Axes, standings: Sequence[Standing]) -> None:
    """Puts each name beside its mark, where it covers least."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # so that the positions stay valid
    points = [(one.probed.images_per_second, one.probed.value) for one in standings]
    marks = [(float(x), float(y)) for x, y in axes.transData.transform(points)]
    taken, lines = [_around(mark, 7) for mark in marks], _lines(axes, standings)
    for one, point, mark in zip(standings, points, marks, strict=True):
        text = axes.annotate(
            one.probed.name, point, xytext=OFFSETS[0], textcoords="offset points", fontsize=9, va="center",
            parse_math=False, zorder=3, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
        size, scale = text.get_window_extent().size, figure.dpi / 72
        boxes = {offset: _box(mark, offset, (size[0], size[1]), scale) for offset in OFFSETS}
        chosen = min(OFFSETS, key=lambda offset: _cost(boxes[offset], taken, lines, axes.bbox) + abs(offset[0]))
        text.set_position(chosen)
        text.set_horizontalalignment("left" if chosen[0] > 0 else "right")
        taken.append(boxes[chosen])


def _lines(axes: Axes, standings: Sequence[Standing]) -> list[Bbox]:
    """Small boxes along the intervals and the front, in pixels."""
    found = [one.probed for one in standings]
    ends = [((f.images_per_second, f.low), (f.images_per_second, f.high)) for f in found]
    ahead = _ahead(standings)
    ends += list(pairwise(ahead))
    pixels = [axes.transData.transform(pair) for pair in ends]
    return [_around(a + (b - a) * share, 2) for a, b in pixels for share in np.linspace(0, 1, 60)]


def _around(point: Sequence[float], reach: float) -> Bbox:
    return Bbox([[point[0] - reach, point[1] - reach], [point[0] + reach, point[1] + reach]])


def _box(mark: tuple[float, float], offset: tuple[float, float], size: tuple[float, float], scale: float) -> Bbox:
    """The pixels of a name of this size at an offset from its mark."""
    x, y = mark[0] + offset[0] * scale, mark[1] + offset[1] * scale
    left = x if offset[0] > 0 else x - size[0]
    return Bbox([[left, y - size[1] / 2], [left + size[0], y + size[1] / 2]])


def _cost(box: Bbox, taken: list[Bbox], lines: list[Bbox], frame: Bbox) -> int:
    """Covered marks and names and the frame's edge, which make a name unreadable, cost most; then lines."""
    inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
    return 1000 * (box.count_overlaps(taken) + (not inside)) + box.count_overlaps(lines)
