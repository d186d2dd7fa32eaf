"""The plots of the audit. They need no display and carry no date, so that the same data give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ..common.images.contact_sheet import contact_sheet, save
from ..common.images.reading import Reading
from .curve import Curve

GREY, GREEN, RED = "#9aa5b1", "#2a7f62", "#c0392b"

NAMED = 100
"""Labels with a colour and a name in the map: the most frequent ones."""


def label_issues_plot(table: pd.DataFrame, raw: Path, path: Path, reading: Reading) -> None:
    """Each image with its label, and below it the suggestion of the models."""
    captions = [
        f"{row.label or 'none'}\n{row.suggested or 'none'}?"
        + ("" if np.isnan(row.p_suggested) else f" ({row.p_suggested:.0%})")
        for row in table.itertuples()
    ]
    contact_sheet([raw / name for name in table["path"]], captions, "Suspected labels", path, reading)


def pairs_plot(table: pd.DataFrame, title: str, raw: Path, path: Path, reading: Reading) -> None:
    """Both images of each pair, side by side."""
    images, captions = [], []
    for row in table.itertuples():
        images += [raw / row.path, raw / row.other_path]
        nearness = f"pixels {row.cosine_pixels:.2f}, features {row.cosine_features:.2f}"
        captions += [f"{row.split}: {row.label}", f"{row.other_split}: {row.other_label}\n{nearness}"]
    contact_sheet(images, captions, title, path, reading)


def outliers_plot(table: pd.DataFrame, raw: Path, path: Path, reading: Reading) -> None:
    """The farthest first."""
    captions = [f"{row.label}\n{row.split}, {row.score:.1f}" for row in table.itertuples()]
    contact_sheet([raw / name for name in table["path"]], captions, "Outliers", path, reading)


def scores_plot(table: pd.DataFrame, raw: Path, path: Path, reading: Reading) -> None:
    """Good images, the most anomalous first."""
    captions = [f"{row.split}, {row.score:.3g}\n{row.deviation:.1f} deviations" for row in table.itertuples()]
    title = "Good images with the highest scores when held out"
    contact_sheet([raw / name for name in table["path"]], captions, title, path, reading)


def map_plot(table: pd.DataFrame, path: Path, numbers: bool) -> None:
    """Every image at its place, in the colour of its label (or number), with the name of each label in the middle.

    Args:
        table: `x`, `y`, `label`, `label_issue`, `outlier`.
    """
    figure = Figure(figsize=(9, 8.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xticks=[], yticks=[], title="Images with similar features are near each other (t-SNE)")
    axes.spines[:].set_visible(False)
    if numbers:
        shown = axes.scatter(table["x"], table["y"], c=table["label"].astype(float), s=16, cmap="viridis", linewidths=0)
        figure.colorbar(shown, ax=axes, shrink=0.6, label="label")
    else:
        _coloured(axes, table)
    _ring(axes, table[table["label_issue"]], RED, "o", "suspected label")
    _ring(axes, table[table["outlier"]], "black", "D", "outlier")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", frameon=False)
    save(figure, path)


def _coloured(axes: Axes, table: pd.DataFrame) -> None:
    labels = sorted(table["label"].value_counts().sort_index().nlargest(NAMED).index)
    others = table[~table["label"].isin(labels)]
    axes.scatter(others["x"], others["y"], s=14, color=GREY, linewidths=0)
    for label, colour in zip(labels, _colours(len(labels)), strict=True):
        mine = table[table["label"] == label]
        axes.scatter(mine["x"], mine["y"], s=14, color=colour, alpha=0.75, linewidths=0)
    size = 12 if len(labels) <= 12 else 9 if len(labels) <= 40 else 6.5
    for label, colour in zip(labels, _colours(len(labels)), strict=True):
        axes.annotate(
            label or "none", _middle(table.loc[table["label"] == label, ["x", "y"]].to_numpy()), xytext=(0, size / 2),
            textcoords="offset points", color=0.7 * np.array(colour[:3]), fontsize=size, weight="bold", ha="center",
            parse_math=False, path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _colours(count: int) -> list[tuple[float, ...]]:
    """As distinct as so many can be; consecutive ones are far apart in hue."""
    if count <= 10:
        return [colormaps["tab10"](k) for k in range(count)]
    return [colormaps["hsv"]((k * 0.618034) % 1.0) for k in range(count)]


def _middle(places_N2: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The image nearest to the medians: for a class in two clusters, a place in one of them."""
    x, y = places_N2[((places_N2 - np.median(places_N2, axis=0)) ** 2).sum(axis=1).argmin()]
    return float(x), float(y)


def _ring(axes: Axes, table: pd.DataFrame, colour: str, marker: str, name: str) -> None:
    if len(table):
        axes.scatter(
            table["x"],
            table["y"],
            s=60,
            facecolors="none",
            edgecolors=colour,
            marker=marker,
            linewidths=1.2,
            label=name,
        )


def curve_plot(curve: Curve, title: str, percent: bool, path: Path) -> None:
    """The metric by training images, with intervals, and the fitted law up to twice as many."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    sizes, table = curve.sizes, curve.table
    axes.scatter(table["images"], table["value"], s=12, color=GREY, label="one subset", zorder=2)
    reach = [sizes["value"] - sizes["low"], sizes["high"] - sizes["value"]]
    axes.errorbar(
        sizes["images"],
        sizes["value"],
        yerr=np.maximum(reach, 0),
        fmt="o-",
        color=GREEN,
        capsize=3,
        label="mean",
        zorder=3,
    )
    if curve.fitted:
        _law(axes, curve)
    axes.set_xscale("log")
    ticks = list(sizes["images"])
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], rotation=45 if len(ticks) > 5 else 0)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(7))
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set(xlabel="training images", ylabel=f"{title} on validation", title="Learning curve")
    axes.grid(color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    save(figure, path)


def _law(axes: Axes, curve: Curve) -> None:
    most = float(curve.sizes["images"].iloc[-1])
    n = np.geomspace(float(curve.sizes["images"].iloc[0]), 2 * most, 100)
    value = 1 - curve.fitted["a"] - curve.fitted["b"] * n ** -curve.fitted["c"]
    axes.plot(n, value, color=GREEN, linestyle="--", linewidth=1, zorder=1, label="power law")
    axes.axvline(most, color=GREY, linewidth=0.8, linestyle=":")
