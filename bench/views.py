"""What augmented views buy where images are few, and what half precision costs: a head's accuracy on unseen images.

    python -m bench.views --photos FOLDER --publish      FOLDER holds a folder a class

Both use Graft's own stages `features` (its engine, augmentation and views) and `head`, with their defaults, on
`tf_efficientnet_lite0`; the strength is chosen on validation images, and the metrics are those of the other images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd

from graft.tasks.common.backbones.graph import Graph, backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress
from graft.tasks.common.data.feature_set import FeatureSet, read_feature_set
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.heads.load import load_linear_head
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import load
from graft.tasks.common.scoring.classification import accuracy, log_loss
from graft.tasks.features.params import FeaturesParams
from graft.tasks.features.views import augmentation
from graft.tasks.head.params import HeadParams
from graft.tasks.head.stage import run as train_head

from . import report
from .processes import BUILD, machine, say, versions

BACKBONE = "tf_efficientnet_lite0"
A_CLASS, TO_TRAIN = 20, 15
"""Labelled images of a class, and how many of them train; the others choose the strength."""

VIEWS = (0, 1, 2, 4, 8, 16)
SEEDS = 5


def list_images(folder: Path) -> pd.DataFrame:
    """Columns `path`, `label`, `image_id` of all JPEG and PNG files in folders of classes."""
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    ids = [hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() for file in files]
    return pd.DataFrame({"path": [str(f) for f in files], "label": [f.parent.name for f in files], "image_id": ids})


def features(engine: Engine, what: str, count: int, load_one: Any) -> np.ndarray[Any, Any]:
    """Float32 (count, D)."""
    with progress(f"views: {what}", count) as bar:
        parts = []
        for _, batch in engine.stream(load_one, count):
            parts.append(batch)
            bar.add(len(batch))
    return np.concatenate(parts)


def few_of_each(images: pd.DataFrame, seed: int) -> pd.Series:
    """A split with `A_CLASS` labelled images a class; all others are the test."""
    shuffled = images.sample(frac=1, random_state=seed)
    place = shuffled.groupby("label").cumcount()
    split = np.select([place < TO_TRAIN, place < A_CLASS], ["train", "val"], "test")
    return pd.Series(split, index=shuffled.index).sort_index()


def usual_split(images: pd.DataFrame, seed: int) -> pd.Series:
    at = np.random.default_rng(seed).random(len(images))
    return pd.Series(np.select([at < 0.15, at < 0.3], ["test", "val"], "train"), index=images.index)


def test_metrics(images: pd.DataFrame, split: pd.Series, x_ND: Any, views_VD: Any, folder: Path) -> dict[str, float]:
    """Trains the stage `head` on a pack and tests it."""
    paths = Paths(folder)
    paths.features.mkdir(parents=True, exist_ok=True)
    index = images.assign(split=split, group=None, weight=1.0)
    np.save(paths.features / "features.npy", x_ND)
    np.save(paths.features / "views.npy", views_VD)
    index.to_parquet(paths.features / "index.parquet")
    (paths.features / "fingerprint.json").write_text(json.dumps({"engine": "openvino", "precision": "f32"}))
    train_head(HeadParams(), paths)
    pack: FeatureSet = read_feature_set(paths.features)
    rows = pack.rows("test")
    p_NK = load_linear_head(paths.head).predict_proba(pack.features(rows))
    y = pack.labels(rows)
    return {"accuracy": accuracy(p_NK, y), "log_loss": log_loss(p_NK, y, np.ones(len(y)))}


def measure_views(images: pd.DataFrame, x_ND: Any, engine: Engine, graph: Graph, folder: Path) -> list[dict[str, Any]]:
    """One row a number of views and seed."""
    rows = []
    augment = augmentation(FeaturesParams(views=max(VIEWS)), graph.spec.transform, Reading())
    for seed in range(SEEDS):
        split = few_of_each(images, seed)
        train = images[split == "train"].reset_index(drop=True)

        def load_view(i: int, train: pd.DataFrame = train) -> Any:
            image = train.iloc[i % len(train)]
            resized = augment.resized(Path(image["path"]), None)
            return augment.view(resized, image["image_id"], 1 + i // len(train))

        views = features(engine, f"seed {seed}", max(VIEWS) * len(train), load_view)
        for count in VIEWS:
            found = test_metrics(images, split, x_ND, views[: count * len(train)], folder)
            rows.append({"views": count, "seed": seed, **found})
    return rows


def measure_precision(images: pd.DataFrame, x_ND: Any, folder: Path) -> list[dict[str, Any]]:
    """One row a dtype and seed, on the usual shares of 70, 15 and 15 %."""
    rows = []
    for seed in range(SEEDS):
        split = usual_split(images, seed)
        for dtype in ("float32", "float16"):
            stored = x_ND.astype(dtype)
            rows.append({"dtype": dtype, "seed": seed, **test_metrics(images, split, stored, stored[:0], folder)})
    return rows


def text(results: dict[str, Any]) -> str:
    """All that stands between the markers `views` of the page."""
    views = [_row(f"{count}", [r for r in results["views"] if r["views"] == count]) for count in VIEWS]
    dtypes = [_row(name, [r for r in results["dtypes"] if r["dtype"] == name]) for name in ("float32", "float16")]
    metrics = ["test accuracy", "least", "greatest", "test log loss"]
    return (
        f"{results['date']}; {results['images']:,} images of {results['classes']} classes, `{BACKBONE}`, "
        f"means of {SEEDS} random splits.\n\n"
        f"{A_CLASS} images a class ({TO_TRAIN} train, {A_CLASS - TO_TRAIN} choose the strength), all others tested:\n\n"
        f"{report.table(['views', *metrics], views)}\n\n"
        f"70 % trained on, 15 % for the choice, 15 % tested; `features.dtype`:\n\n"
        f"{report.table(['dtype', *metrics], dtypes)}"
    )


def _row(name: str, runs: Iterable[dict[str, Any]]) -> list[str]:
    runs = list(runs)
    accuracies = [run["accuracy"] for run in runs]
    metrics = [mean(accuracies), min(accuracies), max(accuracies), mean(run["log_loss"] for run in runs)]
    return [name, *(f"{metric:.4f}" for metric in metrics)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder a class")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args()
    images = list_images(options.photos)
    graph = backbone_graph(BACKBONE, find_weights(BACKBONE, "package", BUILD / "weights"), BUILD / "cache")
    engine = Engine(graph.xml)
    x_ND = features(
        engine, "images", len(images), lambda i: load(Path(images["path"][i]), None, graph.spec.transform, Reading())
    )
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "date": date.today().isoformat(),
            "machine": machine(),
            "versions": versions(),
            "images": len(images),
            "classes": images["label"].nunique(),
            "views": measure_views(images, x_ND, engine, graph, Path(folder)),
            "dtypes": measure_precision(images, x_ND, Path(folder)),
        }
    say("")
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("views", results, text(results), target))


if __name__ == "__main__":
    main()
