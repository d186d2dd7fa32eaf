"""Which images to label next: Graft's choice beside random, scikit-activeml and cleanlab, on the same features.

    python -m bench.labelling --data FOLDER [FOLDER ...] --publish     folders of images, a folder a class
    python -m bench.labelling --quick                                  a smoke test on the sample

The sample in sample/ is always measured too. Of each of ten seeds a fifth of the images is for test, so that each image
is for test twice; the others are the pool, whose labels are given back in rounds. All orders are judged by the same
model: logistic regression on the leading axes of features of `tf_efficientnet_lite0`. For suspected labels, 5 % are
flipped. `make bench-labelling` makes the environment of scikit-activeml and cleanlab first; without it, Graft is
measured alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from graft.tasks.audit.findings import doubted_twice, whole_units
from graft.tasks.audit.label_issues import label_issues
from graft.tasks.audit.params import AuditParams
from graft.tasks.audit.probe import USUAL_L2, Probe
from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.cores import cores
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import load
from graft.tasks.labelling.probe import L2, learn, principal
from graft.tasks.labelling.strategies import Pool, Strategy, axes_of, choose

from . import report
from .memory import watched
from .processes import BUILD, ROOT, machine, say, timed, versions

Json = dict[str, Any]
Rows = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

BACKBONE = "tf_efficientnet_lite0"
PEERS = ROOT / ".venv-bench-labelling"
"""The environment of bench/requirements-labelling.txt."""

SAMPLE = ROOT / "sample" / "fashion-mnist-2000.zip"
FORMATS = (".jpg", ".jpeg", ".png")
SEEDS, PARTS = 10, 5
ROUND = 25
SIZES = (25, 50, 75, 100, 125, 150, 175, 200, 225, 250, 300, 400, 500)
MANY, FEATURES, WANTED = 100_000, 1_280, 100
FLIPPED = 0.05
STRATEGIES: tuple[Strategy, ...] = ("auto", "random")
JUDGED_BY = 0.1
"""The strength of the model that judges: of 0.03 to 0.8, the best for 500 random labels."""

NAMES = {
    "auto": "**Graft, auto**",
    "random": "random",
    "skactiveml_margin": "scikit-activeml, margin",
    "skactiveml_typiclust": "scikit-activeml, TypiClust",
}


# ---------------------------------------------------------------- features


def features(folder: Path, kept: Path) -> tuple[Singles, Rows]:
    """Features (N, D) and class codes (N,) of a folder a class; computed once, and kept."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in FORMATS)
    if not kept.is_file():
        graph = backbone_graph(BACKBONE, find_weights(BACKBONE, "auto", ROOT / "data/weights"), BUILD / "cache")
        engine, reading = Engine(graph.xml), Reading()
        x_ND = np.empty((len(files), engine.dimension), np.float32)
        for start, batch_BD in engine.stream(lambda i: load(files[i], None, graph.spec.transform, reading), len(files)):
            x_ND[start : start + len(batch_BD)] = batch_BD
        np.save(kept, x_ND)
    return np.load(kept), np.unique([file.parent.name for file in files], return_inverse=True)[1].astype(np.int64)


def folders(given: list[Path], build: Path) -> dict[str, Path]:
    """Name -> folder; the sample is unpacked."""
    sample = build / "sample"
    if not sample.is_dir():
        with zipfile.ZipFile(SAMPLE) as archive:
            archive.extractall(sample)
    return {**{folder.name: folder for folder in given}, "sample": sample}


# ---------------------------------------------------------------- curves


def held_out(count: int) -> npt.NDArray[np.bool_]:
    """(seeds, N), which images are for test: with every five seeds, each image once."""
    rng = np.random.default_rng(0)
    fifth_TN = [rng.permutation(count) % PARTS for _ in range(SEEDS // PARTS)]
    return np.array([fifth_TN[seed // PARTS] == seed % PARTS for seed in range(SEEDS)])


def graft_order(strategy: Strategy, data: Json, pool: Rows, seed: int) -> Rows:
    """The order in which images of the pool get their label."""
    known, model = np.empty(0, np.int64), None
    while len(known) < data["most"]:
        rest = np.setdiff1d(pool, known)
        p_PK = None if model is None else model(data["x"][rest])
        at = Pool(
            data["axes"][rest],
            rest,
            p_PK,
            data["axes"][known],
            data["y"][known],
            data["classes"],
            1000 * seed + len(known),
        )
        wanted = min(ROUND, data["most"] - len(known))
        known = np.concatenate([known, rest[choose(at, wanted, strategy).rows]])
        model = learn(data["x"][known], data["y"][known], "classification", data["classes"])
    return known


def curve(order: Rows, data: Json, test: Rows) -> list[float]:
    """The accuracy on test with the first 25, 50, ... labels."""
    found = []
    for size in data["sizes"]:
        x_NA, y_N = data["x"][order[:size]], data["y"][order[:size]]
        output = learn(x_NA, y_N, "classification", data["classes"], JUDGED_BY)(data["x"][test])
        found.append(float((output.argmax(axis=1) == data["y"][test]).mean()))
    return found


def labels_to_reach(sizes: list[int], accuracy_S: npt.NDArray[np.float64], goal: float) -> int | None:
    """The first size whose accuracy is not below the goal."""
    reached = np.flatnonzero(accuracy_S >= goal - 1e-9)
    return sizes[reached[0]] if len(reached) else None


def measure(name: str, folder: Path, build: Path, quick: bool) -> Json:
    features_ND, y_N = features(folder, build / f"{name}.npy")
    test_SN = held_out(len(y_N))[: 2 if quick else SEEDS]
    most = min(100 if quick else SIZES[-1], int((~test_SN).sum(axis=1).min()))
    data: Json = {"x": principal(features_ND), "y": y_N, "classes": int(y_N.max()) + 1, "most": most}
    data["axes"] = axes_of(features_ND, np.random.default_rng(0))(features_ND)
    data["sizes"] = sorted({*(size for size in SIZES if size < most), most})
    data["given"], flipped = flip(y_N, data["classes"])
    orders: dict[str, list[Any]] = {
        strategy: [graft_order(strategy, data, np.flatnonzero(~test_N), seed) for seed, test_N in enumerate(test_SN)]
        for strategy in STRATEGIES
    }
    say(f"{name}: chosen")
    asked = peers(data, test_SN, build / name)
    orders |= {key: [np.array(order) for order in found] for key, found in asked.get("orders", {}).items()}
    curves = {
        key: np.mean(
            [curve(order, data, np.flatnonzero(test_N)) for order, test_N in zip(found, test_SN, strict=True)], axis=0
        )
        for key, found in orders.items()
    }
    goal = float(curves["random"][-1])
    say(f"{name}: judged")
    return {
        "images": len(y_N),
        "classes": data["classes"],
        "sizes": data["sizes"],
        "curves": {key: [round(float(value), 4) for value in found] for key, found in curves.items()},
        "goal": round(goal, 4),
        "labels": {key: labels_to_reach(data["sizes"], found, goal) for key, found in curves.items()},
        "most_below": round(float((curves["random"] - curves["auto"]).max()), 4),
        "suspects": {
            key: found_first(found, flipped)
            for key, found in {
                "graft": graft_suspects(features_ND, data["given"]),
                "cleanlab": asked.get("suspects"),
            }.items()
            if found is not None
        },
        "flipped": len(flipped),
        "versions": asked.get("versions", {}),
    }


def peers(data: Json, test_SN: npt.NDArray[np.bool_], folder: Path) -> Json:
    """What scikit-activeml and cleanlab choose; nothing without their environment."""
    python = PEERS / "bin" / "python"
    if not python.is_file():
        say(f"{PEERS.name} is not there: Graft is measured alone")
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {key: data[key] for key in ("x", "axes", "y", "given", "most")}
    np.savez(folder / "task.npz", **arrays, test=test_SN, round=ROUND, l2=L2)
    timed([python, "-m", "bench.peers.choose_labels", folder], ROOT)
    found: Json = json.loads((folder / "chosen.json").read_text(encoding="utf-8"))
    return found


# ---------------------------------------------------------------- suspects


def flip(y_N: Rows, classes: int) -> tuple[Rows, Rows]:
    """Labels with 5 % of another class, and the rows of these."""
    rng = np.random.default_rng(1)
    flipped = rng.choice(len(y_N), round(FLIPPED * len(y_N)), replace=False)
    given = y_N.copy()
    given[flipped] = (given[flipped] + rng.integers(1, classes, len(flipped))) % classes
    return given, flipped


def graft_suspects(features_ND: Singles, given_N: Rows) -> list[int]:
    """The audit's suspected labels, the most suspicious first."""
    ids = [f"{row:032x}" for row in range(len(given_N))]
    index = pd.DataFrame({"image_id": ids, "path": ids, "label": [f"{code:04}" for code in given_N], "pixels": ids})
    index = index.assign(task="classification", split="train", group=None, weight=1.0)
    pack = FeatureSet(features_ND, np.zeros((0, features_ND.shape[1]), np.float32), index, {"digest": ""})
    rows = np.arange(len(given_N))
    with tempfile.TemporaryDirectory() as scratch:
        probe = Probe.of(pack, USUAL_L2, Path(scratch))
        output = doubted_twice(probe, rows, whole_units(pack, rows), AuditParams())
    return [int(image_id, 16) for image_id in label_issues(pack, rows, output)["image_id"]]


def found_first(suspects: list[int], flipped: Rows) -> Json:
    """Of as many first suspects as labels were flipped, the share of flips; and how many are suspected in all."""
    hits = np.isin(suspects[: len(flipped)], flipped).sum()
    return {"of_the_first": round(float(hits / len(flipped)), 4), "suspected": len(suspects)}


# ---------------------------------------------------------------- speed


def speed(strategy: Strategy, build: Path, count: int) -> Json:
    """Seconds and peak memory of choosing 100 images, in a process of its own."""
    words = [sys.executable, "-m", "bench.labelling", "--choose", strategy, str(count), str(build / "choose.json")]
    found = watched(words, ROOT, build / "choose.log")
    seconds = json.loads((build / "choose.json").read_text(encoding="utf-8"))["seconds"]
    return {"images": count, "seconds": seconds, "peak_mib": found["peak_mib"]}


def choose_many(strategy: Strategy, count: int, out: Path) -> None:
    """The features are generated, of 50 kinds; 1,000 images have a label."""
    rng, known = np.random.default_rng(0), 1_000
    centre_KD = rng.standard_normal((50, FEATURES), np.float32)
    x_ND = rng.standard_normal((count + known, FEATURES), np.float32)
    kind_N = rng.integers(50, size=count + known)
    for start in range(0, len(x_ND), 4096):
        x_ND[start : start + 4096] += centre_KD[kind_N[start : start + 4096]]
    p_PK = rng.dirichlet(np.full(50, 0.1), count)
    small_NV = rng.standard_normal((count + known, 48), np.float32).astype(np.float16)
    units = np.arange(count)
    at = Pool(x_ND[:count], units, p_PK, x_ND[count:], kind_N[count:], 50, 0, small_NV[:count], small_NV[count:])
    started = time.perf_counter()
    chosen = choose(at, WANTED, strategy)
    seconds = round(time.perf_counter() - started, 2)
    out.write_text(json.dumps({"seconds": seconds, "chosen": len(chosen.rows)}), encoding="utf-8")


# ---------------------------------------------------------------- results


def labelling_text(results: Json) -> str:
    facts = results["machine"]
    blocks = [
        f"{report.machine_text(facts)} Load before the run: {facts['load_before']}.\n"
        f"{results['date']}; means of {results['seeds']} seeds, {ROUND} labels a round.\n"
        f"Versions: {', '.join(f'{name} {number}' for name, number in results['versions'].items())}."
    ]
    blocks.append(_curves(results["sets"]))
    blocks.append(_reach(results["sets"]))
    blocks.append(_suspects(results["sets"]))
    blocks.append(_speed(results["speed"]))
    return "\n\n".join(blocks)


def _curves(sets: Json) -> str:
    """The accuracy of `auto` and of random labels."""
    shown = [
        size for size in (25, 50, 100, 150, 200, 250, 300, 500) if any(size in one["sizes"] for one in sets.values())
    ]
    rows = []
    for name, one in sets.items():
        at = {size: place for place, size in enumerate(one["sizes"])}
        for key, curve_S in one["curves"].items():
            values = [f"{curve_S[at[size]]:.1%}" if size in at else "" for size in shown]
            rows.append([f"{name}, {NAMES[key]}", *values])
    return report.table(["accuracy with so many labels", *map(str, shown)], rows)


def _reach(sets: Json) -> str:
    keys = [key for key in NAMES if any(key in one["curves"] for one in sets.values())]
    rows = [
        [
            name,
            str(one["sizes"][-1]),
            f"{one['goal']:.1%}",
            *(str(one["labels"].get(key) or "not reached") for key in keys if key != "random"),
            f"{100 * one['most_below']:.1f}",
        ]
        for name, one in sets.items()
    ]
    head = [
        "labels to be as good as random ones",
        "random labels",
        "accuracy",
        *(NAMES[k] for k in keys if k != "random"),
    ]
    return report.table([*head, "points that auto is below random at most"], rows)


def _suspects(sets: Json) -> str:
    keys = {"graft": "**Graft's audit**", "cleanlab": "cleanlab"}
    shown = [key for key in keys if any(key in one["suspects"] for one in sets.values())]
    rows = [
        [
            name,
            str(one["flipped"]),
            *(f"{one['suspects'][key]['of_the_first']:.1%} ({one['suspects'][key]['suspected']})" for key in shown),
        ]
        for name, one in sets.items()
    ]
    head = ["share of flipped labels among as many first suspects (all suspects)", "flipped"]
    return report.table([*head, *(keys[key] for key in shown)], rows)


def _speed(found: Json) -> str:
    rows = [
        [f"{strategy}, {one['images']:,} images", f"{one['seconds']:.1f}", f"{one['peak_mib']:,.0f}"]
        for strategy, one in found.items()
    ]
    return report.table([f"choosing {WANTED}", "seconds", "peak of the process, features included, MiB"], rows)


def main() -> None:
    options = arguments()
    if options.choose:
        strategy, count, out = options.choose
        choose_many(strategy, int(count), Path(out))
        return
    build = BUILD / "labelling"
    build.mkdir(parents=True, exist_ok=True)
    facts = machine()
    given = folders(options.data, build)
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:
        found = [pool.submit(measure, name, folder, build, options.quick) for name, folder in given.items()]
        sets = {name: one.result() for name, one in zip(given, found, strict=True)}
    many = 5_000 if options.quick else MANY
    both: tuple[Strategy, ...] = ("typical", "margin")
    results = {
        "date": date.today().isoformat(),
        "machine": facts,
        "versions": {**versions(), **next(iter(sets.values()))["versions"]},
        "seeds": 2 if options.quick else SEEDS,
        "sets": sets,
        "speed": {strategy: speed(strategy, build, many) for strategy in both},
    }
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_labelling(results, labelling_text(results), target))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], metavar="FOLDER", help="images, a folder a class")
    parser.add_argument("--quick", action="store_true", help="few labels, two seeds, 5,000 images")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    parser.add_argument("--choose", nargs=3, metavar=("STRATEGY", "IMAGES", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish and (options.quick or not (PEERS / "bin" / "python").is_file()):
        parser.error("only a full run beside the peers is published: leave out --quick, and run make bench-labelling")
    return options


if __name__ == "__main__":
    main()
