"""The plot of a drift check: both samples along their first two axes, and distances to the nearest reference image."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .drift import Comparison

matplotlib.use("agg")

GREY, RED = "#9aa5b1", "#c0392b"


def drift_picture(found: Comparison, model: str, path: Path) -> None:
    """The reference images of a model in grey, new images in red."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    scatter, histogram = figure.subplots(1, 2)
    _draw_axes(scatter, found, model)
    _draw_distances(histogram, found)
    for axes in (scatter, histogram):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{found.verdict}: {_shares(found)}", fontsize=11)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _shares(found: Comparison) -> str:
    return f"shift {found.mmd.value:.2f} (p = {found.mmd.p:.2g}), far {found.far.value:.1%} (p = {found.far.p:.2g})"


def _draw_axes(axes: Axes, found: Comparison, model: str) -> None:
    n = len(found.reference_distances)
    parts = (
        (found.axes_N2[:n], GREY, f"images of {model}".replace("$", r"\$")),
        (found.axes_N2[n:], RED, "new images"),
    )
    for points, colour, name in parts:
        axes.scatter(
            points[:, 0], points[:, 1], s=9, color=colour, alpha=0.6, linewidths=0, label=f"{name} ({len(points):,})"
        )
    axes.set(xlabel="first axis of the features", ylabel="second axis", xticks=[], yticks=[])
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)


def _draw_distances(axes: Axes, found: Comparison) -> None:
    bins = np.linspace(0, max(1e-9, found.reference_distances.max(), found.distances.max()), 40).tolist()
    for distances, colour in ((found.reference_distances, GREY), (found.distances, RED)):
        weights = np.full(len(distances), 1 / len(distances))
        axes.hist(distances, bins, weights=weights, color=colour, alpha=0.6)
    axes.axvline(found.far_distance, color="black", linewidth=1)
    axes.annotate("far", (found.far_distance, 0.97), xycoords=("data", "axes fraction"), xytext=(4, 0),
                  textcoords="offset points", fontsize=9, va="top")  # fmt: skip
    axes.set(xlabel="distance to the nearest image of the model", ylabel="share of the images")
