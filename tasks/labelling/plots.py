"""The plot of the simulation: chosen labels beside random ones."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..common.data.task import MAIN
from ..common.images.contact_sheet import DPI
from .simulation import Simulation

GREY, GREEN = "#9aa5b1", "#2a7f62"


def simulation_plot(found: Simulation, path: Path) -> None:
    """The main metric on validation by the number of labels, for `auto` and for random labels, as PNG."""
    metric = MAIN[found.task]
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.sizes, found.auto, "o-", color=GREEN, label="chosen by auto")
    axes.plot(found.sizes, found.random, "o-", color=GREY, label="random")
    axes.set_xscale("log")
    axes.set_xticks(found.sizes, [f"{size:,}" for size in found.sizes], rotation=45)
    axes.xaxis.set_minor_formatter(NullFormatter())
    if metric.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set(xlabel="labels", ylabel=f"{metric.title} on validation", title="What labels bring")
    axes.grid(color="#e4e7eb", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
