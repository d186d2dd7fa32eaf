"""What several backbones or sizes buy where images are few: accuracy on unseen images, and the cost of the features.

    python -m bench.eyes --photos FOLDER --publish      FOLDER holds a folder a class

Features come from Graft's engine with one decode for each list, the heads from `head`'s own `choose_combined` and
`retrain` with their defaults. Of each class some images are labelled: three quarters train, one quarter is validation;
all others are the test. The cost is processor time, of decoding and of the networks, against one backbone alone, on a
sample of the images and in turns, so that other work on the machine disturbs all alike. It takes ten minutes on two
cores; features are kept in build/bench/eyes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import numpy as np
import pandas as pd

from graft.tasks.common.backbones.graph import Graph, backbone_graph
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.files import json_digest
from graft.tasks.common.core.progress import progress
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.data.matrix import spread
from graft.tasks.common.engines.one_decode import Part, stream_all
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.scoring.classification import accuracy, log_loss
from graft.tasks.head.combine import choose_combined, retrain, served_score
from graft.tasks.head.params import HeadParams
from graft.tasks.head.scores import Score

from . import report
from .processes import BUILD, machine, say, versions
from .views import list_images

Eye = tuple[str, int | None]
"""A backbone, and the side of its input; None as in pre-training."""

LITE = "tf_efficientnet_lite0"
LISTS: dict[str, list[Eye]] = {
    "lite0": [(LITE, None)],
    "lite0, lite1, lite2": [(f"tf_efficientnet_lite{n}", None) for n in range(3)],
    "lite0 at 160, 224, 288": [(LITE, side) for side in (160, 224, 288)],
}
WAYS: tuple[Literal["side_by_side", "mean"], ...] = ("side_by_side", "mean")
A_CLASS = (20, 60)
"""Labelled images of a class."""

SEEDS = 5

SAMPLE, TURNS = 64, 3
"""The images on which the cost is measured, and how often."""

Features = tuple[np.ndarray[Any, Any], list[int]]
"""Float32 (N, D), and the columns of each part."""


def features_of(eyes: list[Eye], images: pd.DataFrame) -> Features:
    """Computed once, then kept."""
    file = BUILD / "eyes" / f"{json_digest([eyes, list(images['image_id'])])}.npz"
    if not file.is_file():
        parts = _parts([_graph(*eye) for eye in eyes], len(images))
        x_ND, widths = _computed(parts, list(images["path"]))
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, x_ND=x_ND, widths=widths)
    with np.load(file) as kept:
        return kept["x_ND"], kept["widths"].tolist()


def costs(images: pd.DataFrame) -> dict[str, float]:
    """Of each list, in times of the first: medians over the turns."""
    paths = [images["path"][row] for row in spread(len(images), SAMPLE)]
    every = {name: _parts([_graph(*eye) for eye in eyes], len(paths)) for name, eyes in LISTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in LISTS}
    for turn in range(TURNS + 1):
        for name, parts in every.items():
            started = time.process_time()
            _computed(parts, paths)
            if turn:  # the first warms up
                seconds[name].append(time.process_time() - started)
    alone = seconds[next(iter(LISTS))]
    return {name: median(a / b for a, b in zip(took, alone, strict=True)) for name, took in seconds.items()}


def _parts(graphs: list[Graph], count: int) -> list[Part]:
    return [Part(Engine(graph.xml), graph.spec.transform, np.ones(count, np.bool_)) for graph in graphs]


def _computed(parts: list[Part], paths: list[str]) -> Features:
    found: list[list[Any]] = [[] for _ in parts]
    with progress(f"eyes: {len(parts)} at once", len(paths) * len(parts)) as bar:
        for number, _, batch_BD in stream_all(
            parts,
            lambda i: Reading().file(Path(paths[i])),
            lambda picture, _, number: parts[number].transform(*picture),
        ):
            found[number].append(batch_BD)  # which come in order
            bar.add(len(batch_BD))
    blocks = [np.concatenate(batches) for batches in found]
    return np.concatenate(blocks, axis=1), [block.shape[1] for block in blocks]


def _graph(backbone: str, side: int | None) -> Graph:
    source = find_weights(backbone, "package", BUILD / "weights")
    form = Form(image_size=None if side is None else (side, side))
    return backbone_graph(backbone, source, BUILD / "cache", form)


def pack_of(images: pd.DataFrame, labelled: int, seed: int, features: Features) -> FeatureSet:
    """A feature set with `labelled` images a class, a quarter of them for validation; all others are the test."""
    shuffled = images.sample(frac=1, random_state=seed)
    place = shuffled.groupby("label").cumcount()
    split = pd.Series(
        np.select([place < labelled * 3 // 4, place < labelled], ["train", "val"], "test"), index=shuffled.index
    ).sort_index()
    index = images.assign(
        split=split,
        task="classification",
        weight=1.0,
        group=pd.array([None] * len(images), "string"),
        pixels=images["image_id"],
    )
    x_ND, widths = features
    stops = np.cumsum(widths).tolist()
    eyes = [{"columns": [stop - width, stop]} for width, stop in zip(widths, stops, strict=True)]
    return FeatureSet(x_ND, x_ND[:0], index, {} if len(eyes) == 1 else {"eyes": eyes})


def measure(images: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One row for each list, way to combine, number of labelled images and seed."""
    for name, eyes in LISTS.items():
        features = features_of(eyes, images)
        for labelled in A_CLASS:
            for seed in range(SEEDS):
                say(f"eyes: {name}, {labelled} a class, seed {seed}")
                row = {"list": name, "labelled": labelled, "seed": seed}
                for tested in tests(pack_of(images, labelled, seed, features)):
                    yield {**row, **tested}


def tests(pack: FeatureSet) -> Iterator[dict[str, Any]]:
    """Of each way to combine; `auto` is what `choose_combined` would keep, which need not be trained again."""
    if len(pack.eyes) == 1:
        yield _tested(pack, "auto")[0]
        return
    side_by_side, mean = (_tested(pack, name) for name in WAYS)
    yield side_by_side[0]
    yield mean[0]
    kept = mean if mean[1].better_than(side_by_side[1]) else side_by_side
    yield {**kept[0], "combine": "auto", "chosen": kept[0]["combine"]}


def _tested(pack: FeatureSet, combine: Literal["auto", "side_by_side", "mean"]) -> tuple[dict[str, Any], Score]:
    params = HeadParams(combine=combine)
    choice = choose_combined(pack, params)
    head = retrain(choice, pack, pack.rows("train", "val"), params)
    rows = pack.rows("test")
    p_NK, y = head.predict_proba(pack.features(rows)), pack.labels(rows)
    found = {"accuracy": accuracy(p_NK, y), "log_loss": log_loss(p_NK, y, np.ones(len(y)))}
    return {"combine": combine, **found}, served_score(choice, pack, params)


def text(results: dict[str, Any]) -> str:
    """All that stands between the markers `eyes` of the page."""
    tables = "\n\n".join(
        f"{labelled} labelled images a class:\n\n{report.table(_HEAD, _rows(results, labelled))}"
        for labelled in A_CLASS
    )
    return (
        f"{results['date']}; {results['images']:,} images of {results['classes']} classes, means of {SEEDS} random "
        f"splits.\n\n{tables}"
    )


_HEAD = ["backbones", "combined", "test accuracy", "least", "greatest", "gain in points", "test log loss", "cost"]


def _rows(results: dict[str, Any], labelled: int) -> list[list[str]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in results["rows"]:
        if row["labelled"] == labelled:
            groups.setdefault((row["list"], row["combine"]), []).append(row)
    alone = groups[next(iter(LISTS)), "auto"]
    return [_row(name, combine, runs, alone, results["costs"][name]) for (name, combine), runs in groups.items()]


def _row(name: str, combine: str, runs: list[dict[str, Any]], alone: list[dict[str, Any]], cost: float) -> list[str]:
    found = [run["accuracy"] for run in runs]
    gain = 100 * (mean(found) - mean(run["accuracy"] for run in alone))
    several = len(LISTS[name]) > 1
    return [
        name,
        combine.replace("_", " ") if several else "",
        *(f"{value:.4f}" for value in (mean(found), min(found), max(found))),
        f"{gain:+.1f}" if several else "",
        f"{mean(run['log_loss'] for run in runs):.4f}",
        f"{cost:.1f} x",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder a class")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args()
    images = list_images(options.photos)
    results = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "images": len(images),
        "classes": images["label"].nunique(),
        "costs": costs(images),
        "rows": list(measure(images)),
    }
    say("")
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("eyes", results, text(results), target))


if __name__ == "__main__":
    main()
