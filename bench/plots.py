"""The plots of docs/explanation/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

LABELS = {
    "a": "(a) PyTorch, eager fp32",
    "b": "(b) PyTorch, bf16 autocast",
    "c": "(c) Keras, model.predict",
    "d1": "(d) ONNX Runtime, threads",
    "d2": "(d) torch.compile, bf16",
    "e": "(e) Graft, cold",
}
GREY, GREEN, RED = "#9aa5b1", "#2a7f62", "#c0392b"
DPI = 110


def plot_features(results: dict[str, Any], target: Path) -> None:
    """Bars: images per second of each contestant's loop, a panel a backbone, the roofline as a line."""
    backbones = results["backbones"]
    figure, panels = plt.subplots(1, len(backbones), figsize=(6 * len(backbones), 3.6), squeeze=False, sharey=True)
    for panel, (backbone, found) in zip(panels[0], backbones.items(), strict=True):
        _bars(panel, backbone, found["medians"])
    _save(figure, target)


def _bars(panel: Any, backbone: str, found: dict[str, Any]) -> None:
    letters = [letter for letter in LABELS if letter in found]
    rates = [found[letter]["images_per_second"] for letter in letters]
    colours = [GREEN if letter == "e" else GREY for letter in letters]
    bars = panel.barh([LABELS[letter] for letter in letters], rates, color=colours)
    panel.bar_label(bars, fmt="{:,.0f}", padding=3)
    if "p" in found:
        roofline = found["p"]["roofline"]
        panel.axvline(roofline, color=RED, linestyle="--", linewidth=1)
        panel.set_title(f"- - roofline {roofline:,.0f}", loc="right", color=RED, fontsize="small")
    panel.set_xlim(0, 1.15 * max([*rates, found.get("p", {}).get("roofline", 0)], default=1))
    panel.set_title(backbone, loc="left")
    panel.set_xlabel("photographs per second, files to features")
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)


def plot_serving(found: dict[str, Any], target: Path) -> None:
    """Left the requests per second by the number of clients, with the roofline; right the p99."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    names = list(found["servers"])
    counts = [key.rpartition("_")[2] for key in found["servers"][names[0]] if key.startswith("per_second")]
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        places = np.arange(len(counts)) + number * width
        colour = GREEN if name.startswith("graft") else ("#9aa5b1", "#5d6d7e", "#c9d1d9")[number % 3]
        for panel, key in ((left, "per_second_at"), (right, "p99_ms_at")):
            values = [found["servers"][name][f"{key}_{count}"] for count in counts]
            panel.bar_label(panel.bar(places, values, width, color=colour, label=name), fmt="{:,.0f}", fontsize=7)
    for panel, title in ((left, "requests per second"), (right, "p99, milliseconds")):
        panel.set_xticks(np.arange(len(counts)) + 0.4 - width / 2, counts)
        panel.set_xlabel("clients")
        panel.set_title(title, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    right.set_yscale("log")
    left.axhline(found["roofline"], color=RED, linestyle="--", linewidth=1, label="roofline")
    left.legend(frameon=False, fontsize="small")
    _save(figure, target)


def plot_memory(results: dict[str, Any], target: Path) -> None:
    """Left the peak memory, right the cost of an image, by the number of images."""
    sizes = results["medians"]
    counts = [size["images"] for size in sizes]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    left.plot(counts, [size["peak_mib"] for size in sizes], "o-", color=GREEN, label="resident")
    left.plot(counts, [size["peak_anonymous_mib"] for size in sizes], "o--", color=GREY, label="of it anonymous")
    left.set_ylabel("peak of the features stage, MiB")
    left.legend(frameon=False)
    right.plot(counts, [size["milliseconds_an_image"] for size in sizes], "o-", color=GREEN)
    right.set_ylabel("milliseconds an image")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
        panel.minorticks_off()
        panel.set_ylim(0, 1.25 * panel.get_ylim()[1])
        panel.set_xlabel("images")
        panel.spines[["top", "right"]].set_visible(False)
    _save(figure, target)


def plot_head(results: dict[str, Any], target: Path) -> None:
    """Seconds by rows, features, classes and strengths; above, how the best straight line rises on log scales."""
    growth = results["found"].get("growth", {})
    names = {"n": "rows", "d": "features", "k": "classes", "strengths": "strengths from 1e5 to 1e-6"}
    figure, panels = plt.subplots(1, len(names), figsize=(13, 3.2), sharey=True)
    for panel, (name, words) in zip(panels, names.items(), strict=True):
        counts = [int(count) for count in growth.get(name, {})]
        seconds = list(growth.get(name, {}).values())
        panel.set_xlabel(words)
        if not counts:
            continue
        panel.plot(counts, seconds, "o-", color=GREEN)
        if len(counts) > 1:
            slope = np.polyfit(np.log(counts), np.log(seconds), 1)[0]
            panel.set_title(f"grows as {words.split()[0]}$^{{{slope:.1f}}}$", loc="left", fontsize="medium")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xticks(counts, [f"{count:,}" for count in counts], rotation=45, minor=False)
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100]
    panels[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    panels[0].minorticks_off()
    panels[0].set_ylim(0.5, None)
    panels[0].set_ylabel("seconds")
    _save(figure, target)


CONTESTANTS = {
    "patchcore": "anomalib, PatchCore 10 %",
    "patchcore_1": "anomalib, PatchCore 1 %",
    "padim": "anomalib, PaDiM",
    "graft": "Graft",
}


def plot_anomaly(results: dict[str, Any], target: Path) -> None:
    """A row a set: seconds to build, milliseconds an image, image AUROC."""
    sets = list(results["sets"].values())
    figure, panels = plt.subplots(len(sets), 3, figsize=(13, 2.3 * len(sets)), squeeze=False, sharey=True)
    columns = {"build_seconds": "seconds to build", "milliseconds": "milliseconds an image", "auroc": "image AUROC"}
    for row, found in zip(panels, sets, strict=True):
        names = [name for name in CONTESTANTS if name in found["medians"]]
        for panel, (key, words) in zip(row, columns.items(), strict=True):
            values = [found["medians"][name][key] for name in names]
            colours = [GREEN if name == "graft" else GREY for name in names]
            bars = panel.barh([CONTESTANTS[name] for name in names], values, color=colours)
            panel.bar_label(bars, fmt="{:,.3f}" if key == "auroc" else "{:,.1f}", padding=3)
            if key == "auroc":
                panel.set_xlim(0.5, 1.05)
            else:
                panel.set_xscale("log")
                panel.set_xlim(min(values) / 2, 4 * max(values))
            panel.set_xlabel(words)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_title(found["title"], loc="left")
    panels[0][0].invert_yaxis()
    _save(figure, target)


def plot_labelling(results: dict[str, Any], target: Path) -> None:
    """The accuracy by the number of labels, a panel a set."""
    colours = {"auto": GREEN, "random": GREY, "skactiveml_margin": "#5d6d7e", "skactiveml_typiclust": "#c9a227"}
    names = {"skactiveml_margin": "scikit-activeml, margin", "skactiveml_typiclust": "scikit-activeml, TypiClust"}
    figure, panels = plt.subplots(1, len(results["sets"]), figsize=(13, 3.6), squeeze=False)
    for panel, (name, found) in zip(panels[0], results["sets"].items(), strict=True):
        for key, values in found["curves"].items():
            label = {"auto": "Graft, auto", **names}.get(key, key)
            panel.plot(found["sizes"], values, "o-" if key == "auto" else "-", color=colours[key], label=label, ms=3)
        panel.axhline(found["goal"], color=RED, linestyle="--", linewidth=1)
        panel.set_title(name, loc="left")
        panel.set_xlabel("labels")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("accuracy on test")
    panels[0][-1].legend(frameon=False, fontsize="small")
    _save(figure, target)


def _save(figure: Any, target: Path) -> None:
    figure.tight_layout()
    figure.savefig(target, dpi=DPI, metadata={"Software": ""})
    plt.close(figure)
