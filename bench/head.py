"""The head's path of strengths beside scikit-learn's, how it grows, and what it reaches on Fashion-MNIST.

    python -m bench.head --data FOLDER --publish      FOLDER holds the four files of Fashion-MNIST (*-ubyte.gz)
    python -m bench.head --data FOLDER --only versus  one part: versus, exact, growth, whole, wide or quality

All of it on features of `tf_efficientnet_lite0` (1,280), computed once by Graft's own engine and kept in the build
folder. About twenty minutes on two cores, most of it scikit-learn's.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.heads.base import softmax
from graft.tasks.common.heads.load import load_linear_head
from graft.tasks.common.scoring.classification import log_loss
from graft.tasks.common.solvers.logistic import Step, path
from graft.tasks.common.solvers.principal_axes import rotate
from graft.tasks.head.params import HeadParams
from graft.tasks.head.stage import run as train_head

from . import report
from .processes import BUILD, ROOT, machine, say, timed, versions

BACKBONE = "tf_efficientnet_lite0"
FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts them."""

FILES = {part: (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")}
STRENGTHS = np.geomspace(1e5, 1e-6, 45)
"""Of Kornblith et al. 2019."""

GROWTH = np.geomspace(10, 1e-5, 13)
"""The strengths of the plots, but for the one over their number."""

K = 10
TRAIN, VALIDATE = 20_000, 10_000
EXACT_ROWS = 5_000
PATIENCE, TOLERANCE = 3, 1e-4
REPETITIONS = 3

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Json = dict[str, Any]


# ---------------------------------------------------------------- data


def read_idx(file: Path) -> npt.NDArray[np.uint8]:
    """An array in the format of MNIST: two zeros, type, dimensions, sizes, values."""
    content = gzip.decompress(file.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def fashion(folder: Path, build: Path) -> dict[str, tuple[Singles, Ints]]:
    """`train` and `t10k` -> features (N, 1280), classes (N,); computed once."""
    found = {}
    for part, (images, labels) in FILES.items():
        kept = build / f"fashion-{part}.npy"
        if not kept.is_file():
            _extract(read_idx(folder / images), kept, build / "cache")
        found[part] = (np.load(kept, mmap_mode="r"), read_idx(folder / labels).astype(np.int64))
    return found


def _extract(images_NHW: npt.NDArray[np.uint8], kept: Path, cache: Path) -> None:
    graph = backbone_graph(BACKBONE, find_weights(BACKBONE, "package", Path("data/weights")), cache)
    engine, transform = Engine(graph.xml), graph.spec.transform
    features_ND = np.empty((len(images_NHW), engine.dimension), np.float32)
    with progress(f"head: {kept.stem}", len(images_NHW)) as bar:
        for start, batch_BD in engine.stream(
            lambda i: transform(Image.fromarray(images_NHW[i]).convert("RGB")), len(images_NHW)
        ):
            features_ND[start : start + len(batch_BD)] = batch_BD
            bar.add(len(batch_BD))
    np.save(kept, features_ND)


def sets(data: dict[str, tuple[Singles, Ints]], rows: int) -> tuple[Singles, Ints, Singles, Ints]:
    """The first `rows` training images, and the last ones to validate on."""
    x_ND, y_N = data["train"]
    return np.array(x_ND[:rows]), y_N[:rows], np.array(x_ND[-VALIDATE:]), y_N[-VALIDATE:]


def synthetic(n: int, d: int, k: int, seed: int = 0) -> tuple[Singles, Ints]:
    """Rows of k classes that overlap, most of the variance along few directions, as features have it."""
    rng = np.random.default_rng(seed)
    spread_D = np.geomspace(1, 0.05, d, dtype=np.float32)
    centre_KD = rng.standard_normal((k, d), np.float32) * spread_D
    y_N, x_ND = rng.integers(0, k, n), np.empty((n, d), np.float32)
    for start in range(0, n, 8192):
        rows = slice(start, min(start + 8192, n))
        noise = rng.standard_normal((rows.stop - start, d), np.float32) * spread_D
        x_ND[rows] = 0.3 * centre_KD[y_N[rows]] + noise
    return x_ND, y_N


# ---------------------------------------------------------------- contestants, each in a process of its own


def walk(x_ND: Singles, y_N: Ints, k: int, strengths: Floats, **more: Any) -> Iterator[Step]:
    return path(x_ND, y_N, np.ones(len(y_N)), k, strengths, **more)


def until_it_turns(steps: Iterator[Step], x_ND: Singles, y_N: Ints) -> tuple[list[Step], int]:
    """The steps visited until validation has not improved for `PATIENCE` of them, and the best one's place."""
    visited: list[Step] = []
    losses: list[float] = []
    for step in steps:
        visited.append(step)
        losses.append(log_loss(softmax(x_ND @ step.weight_KD.T + step.bias_K), y_N))
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    return visited, int(np.argmin(losses))


def scikit(x_ND: npt.NDArray[Any], y_N: Ints, strengths: Floats, tolerance: float) -> Iterator[Any]:
    """scikit-learn's LogisticRegression along the path, each strength from the solution before."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(tol=tolerance, max_iter=100_000, warm_start=True)
    for l2 in strengths:
        yield model.set_params(C=1 / (len(y_N) * l2)).fit(x_ND, y_N)


def largest_gradient(x_ND: npt.NDArray[Any], y_N: Ints, weight_KD: Floats, bias_K: Floats, l2: float) -> float:
    """Of the mean loss, for standardised x, in float64."""
    residual_NK = softmax(x_ND @ weight_KD.T + bias_K)
    residual_NK[np.arange(len(y_N)), y_N] -= 1
    gradient_KD = residual_NK.T @ x_ND / len(y_N) + l2 * weight_KD
    return float(max(np.abs(gradient_KD).max(), np.abs(residual_NK.mean(axis=0)).max()))


def objective(x_ND: npt.NDArray[Any], y_N: Ints, weight_KD: Floats, bias_K: Floats, l2: float) -> float:
    logits_NK = x_ND @ weight_KD.T + bias_K
    top_N = logits_NK.max(axis=1)
    loss_N = top_N + np.log(np.exp(logits_NK - top_N[:, None]).sum(axis=1)) - logits_NK[np.arange(len(y_N)), y_N]
    return float(loss_N.mean() + l2 / 2 * (weight_KD**2).sum())


def standardised(x_ND: Singles, *others: Singles) -> list[Floats]:
    """As Graft does it, in float64."""
    basis, _ = rotate(x_ND, np.ones(len(x_ND)), None)
    return [(part - basis.mean_D) / basis.scale_D for part in (x_ND, *others)]


def ours(data: Any) -> Json:
    x_ND, y_N, x_val, y_val = sets(data, TRAIN)
    started = time.perf_counter()
    visited, best = until_it_turns(walk(x_ND, y_N, K, STRENGTHS, tolerance=TOLERANCE), x_val, y_val)
    seconds = time.perf_counter() - started
    basis, _ = rotate(x_ND, np.ones(len(x_ND)), None)
    z_ND = (x_ND - basis.mean_D) / basis.scale_D
    gradients = [
        largest_gradient(
            z_ND, y_N, step.weight_KD * basis.scale_D, step.bias_K + step.weight_KD @ basis.mean_D, step.l2
        )
        for step in visited
    ]
    return {
        "seconds": seconds,
        "strengths": [step.l2 for step in visited],
        "best_l2": visited[best].l2,
        "iterations": sum(step.iterations for step in visited),
        "largest_gradient": max(gradients),
    }


def theirs(data: Any, strengths: Floats) -> Json:
    """Its clock starts with the features standardised, in float32."""
    x_ND, y_N, *_ = sets(data, TRAIN)
    z_ND = standardised(x_ND)[0].astype(np.float32)
    iterations, gradients, seconds = 0, [], 0.0
    started = time.perf_counter()
    for l2, model in zip(strengths, scikit(z_ND, y_N, strengths, TOLERANCE), strict=True):
        seconds += time.perf_counter() - started
        iterations += int(model.n_iter_.max())
        gradients.append(largest_gradient(z_ND, y_N, model.coef_, model.intercept_, l2))
        started = time.perf_counter()
    return {"seconds": seconds, "iterations": iterations, "largest_gradient": max(gradients)}


def exact(data: Any) -> Json:
    """Each strength of the path at Graft's default tolerance beside scikit-learn run to convergence in float64."""
    x_ND, y_N, x_val, _ = sets(data, EXACT_ROWS)
    z_ND, z_val = standardised(x_ND, x_val)
    rows = []
    steps = walk(x_ND, y_N, K, STRENGTHS, tolerance=HeadParams().tolerance)
    for step, model in zip(steps, scikit(z_ND, y_N, STRENGTHS, 1e-8), strict=True):
        best = objective(z_ND, y_N, model.coef_, model.intercept_, step.l2)
        same = (x_val @ step.weight_KD.T + step.bias_K).argmax(axis=1) == model.predict(z_val)
        rows.append({"l2": step.l2, "loss": best, "ours": step.train_loss, "same_predictions": float(same.mean())})
        say(f"head: exact: {step.l2:.1e}: {step.train_loss / best - 1:+.1e}, same {same.mean():.4%}")
    return {"rows": EXACT_ROWS, "steps": rows}


def growth(data: Any) -> Json:
    """Seconds by rows, features, classes and strengths; medians."""

    def seconds(x_ND: Singles, y_N: Ints, k: int, strengths: Floats = GROWTH) -> float:
        def once() -> float:
            started = time.perf_counter()
            for _ in walk(x_ND, y_N, k, strengths, tolerance=TOLERANCE):
                pass
            return time.perf_counter() - started

        return round(median(once() for _ in range(REPETITIONS)), 3)

    x_ND, y_N = (np.array(part) for part in data["train"])
    few_ND, few_N = x_ND[:TRAIN], y_N[:TRAIN]
    found: Json = {"n": {}, "d": {}, "k": {}, "strengths": {}}
    for n in (2_500, 5_000, 10_000, 20_000, 40_000, 60_000):
        found["n"][n] = seconds(x_ND[:n], y_N[:n], K)
    for d in (160, 320, 640, 1280):
        found["d"][d] = seconds(np.ascontiguousarray(few_ND[:, :: 1280 // d]), few_N, K)
    for k in (10, 30, 100, 300):
        found["k"][k] = seconds(*synthetic(TRAIN, 1280, k), k)
    for count in (5, 12, 23, 45, 90):
        found["strengths"][count] = seconds(few_ND, few_N, K, np.geomspace(1e5, 1e-6, count))
    say(f"head: growth: {found}")
    return found


def whole(data: Any) -> Json:
    """All 60,000 rows, with the stage's tolerance: until the loss on 10,000 others turns, as the stage `head` walks,
    and all 45 strengths."""
    x_ND, y_N = (np.array(part) for part in data["train"])
    started = time.perf_counter()
    visited, _ = until_it_turns(walk(x_ND, y_N, K, STRENGTHS), *(np.array(part) for part in data["t10k"]))
    turned = time.perf_counter()
    for _ in walk(x_ND, y_N, K, STRENGTHS):
        pass
    return {
        "rows": len(y_N),
        "strengths": len(visited),
        "seconds": turned - started,
        "every_seconds": time.perf_counter() - turned,
        "tolerance": HeadParams().tolerance,
    }


def wide(_: Any) -> Json:
    n, d, k = 100_000, 1280, 1000
    x_ND, y_N = synthetic(n + VALIDATE, d, k)
    started = time.perf_counter()
    visited, best = until_it_turns(walk(x_ND[:n], y_N[:n], k, STRENGTHS, tolerance=TOLERANCE), x_ND[n:], y_N[n:])
    step = visited[best]
    right = (x_ND[n:] @ step.weight_KD.T + step.bias_K).argmax(axis=1) == y_N[n:]
    return {
        "rows": n, "dimension": d, "classes": k, "strengths": len(visited), "best_l2": step.l2,
        "converged": all(step.converged for step in visited),
        "val_accuracy": float(right.mean()),
        "seconds": time.perf_counter() - started,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip


def quality(data: Any) -> Json:
    """The stage `head` with its defaults: 50,000 images to learn from, 10,000 to choose on, 10,000 test images."""
    (x_train, y_train), (x_test, y_test) = data["train"], data["t10k"]
    split = ["train"] * (len(y_train) - VALIDATE) + ["val"] * VALIDATE + ["test"] * len(y_test)
    labels = np.concatenate([y_train, y_test])
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        paths = Paths(Path(folder))
        write_feature_set(paths, np.concatenate([x_train, x_test]), labels, split)
        started = time.perf_counter()
        record = train_head(HeadParams(), paths)
        seconds = time.perf_counter() - started
        predicted = predict(paths, np.array(x_test))
    return {"seconds": seconds, "l2": record.metrics["l2"], "test_accuracy": float((predicted == y_test).mean())}


def predict(paths: Paths, x_ND: Singles) -> Ints:

    return load_linear_head(paths.head).predict_proba(x_ND).argmax(axis=1)


def write_feature_set(paths: Paths, x_ND: Singles, labels: Ints, split: list[str]) -> None:
    paths.features.mkdir(parents=True)
    np.save(paths.features / "features.npy", x_ND)
    np.save(paths.features / "views.npy", x_ND[:0])
    index = pd.DataFrame(
        {
            "image_id": [f"{n:032x}" for n in range(len(labels))],
            "path": [f"{n}.png" for n in range(len(labels))],
            "label": labels.astype(str),
            "task": "classification",
            "split": split,
            "group": None,
            "weight": 1.0,
            "pixels": [f"{n:032x}" for n in range(len(labels))],
        }
    )
    index.to_parquet(paths.features / "index.parquet")
    (paths.features / "fingerprint.json").write_text("{}", encoding="utf-8")


PARTS: dict[str, Callable[[Any], Json]] = {
    "ours": ours, "exact": exact, "growth": growth, "whole": whole, "wide": wide, "quality": quality,
}  # fmt: skip


# ---------------------------------------------------------------- the run


def in_a_process(part: str, options: argparse.Namespace, **strengths: Any) -> Json:
    """A part's measurements; `strengths` for scikit-learn."""
    out = options.build / f"{part}.json"
    words = [sys.executable, "-m", "bench.head", "--data", options.data, "--part", part, "--out", out]
    if strengths:
        given = options.build / "strengths.json"
        given.write_text(json.dumps(strengths["strengths"]), encoding="utf-8")
        words += ["--strengths", given]
    say(f"head: {part}")
    timed(words, ROOT)
    return json.loads(out.read_text(encoding="utf-8"))


def versus(options: argparse.Namespace) -> Json:
    """Turn and turn about, so that a slower minute of the machine is everybody's."""
    raw: dict[str, list[Json]] = {"ours": [], "theirs": []}
    for _ in range(REPETITIONS):
        raw["ours"].append(in_a_process("ours", options))
        raw["theirs"].append(in_a_process("theirs", options, strengths=raw["ours"][-1]["strengths"]))
        say(f"head: versus: {raw['ours'][-1]['seconds']:.2f} s against {raw['theirs'][-1]['seconds']:.1f} s")
    middle = {name: median(run["seconds"] for run in runs) for name, runs in raw.items()}
    return {"raw": raw, "seconds": middle, "faster": middle["theirs"] / middle["ours"]}


# ---------------------------------------------------------------- tables


def head_text(results: Json) -> str:
    """All that stands between the markers `head` of the page."""
    found, numbers = results["found"], results["versions"]
    blocks = [
        f"{report.machine_text(results['machine'])} Load before the run: {results['machine']['load_before']}.\n"
        f"{results['date']}; {', '.join(f'{name} {number}' for name, number in numbers.items())}."
    ]
    if "versus" in found:
        blocks.append(_versus_table(found["versus"]))
    if "exact" in found:
        blocks.append(_exact_text(found["exact"]))
    if rows := [row(found[part]) for part, row in ROWS.items() if part in found]:
        blocks.append(report.table(["1,280 features", "seconds", ""], rows))
    return "\n\n".join(blocks)


def _versus_table(found: Json) -> str:
    first = {name: runs[0] for name, runs in found["raw"].items()}
    names = {"theirs": "scikit-learn, `LogisticRegression`, warm-started, float32", "ours": "**Graft**"}
    rows = [
        [
            name,
            f"{found['seconds'][key]:.2f}",
            f"{first[key]['iterations']:,}",
            f"{first[key]['largest_gradient']:.1e}",
            f"{found['seconds'][key] / found['seconds']['ours']:.1f} x",
        ]
        for key, name in names.items()
    ]
    what = f"{TRAIN:,} rows, {len(first['ours']['strengths'])} strengths"
    return report.table([what, "seconds", "iterations", "largest gradient", "Graft is faster by"], rows)


def _exact_text(found: Json) -> str:
    worst = max(abs(step["ours"] / step["loss"] - 1) for step in found["steps"])
    same = min(step["same_predictions"] for step in found["steps"])
    return (
        f"Beside scikit-learn run to convergence (float64, tolerance 1e-8) on {found['rows']:,} rows, at each of "
        f"{len(found['steps'])} strengths: Graft's training loss (tolerance {HeadParams().tolerance:g}) differs by "
        f"{worst:.1e} at most, relative, and at least {same:.2%} of {VALIDATE:,} predictions are the same."
    )


ROWS: dict[str, Callable[[Json], list[str]]] = {
    "whole": lambda w: [
        f"{w['rows']:,} rows, {w['strengths']} strengths until validation turns, tolerance {w['tolerance']:g}",
        f"{w['seconds']:.1f}",
        f"all {len(STRENGTHS)} strengths: {w['every_seconds']:.0f} s",
    ],
    "quality": lambda q: [
        "Fashion-MNIST, 60,000 + 10,000 images: the stage `head` with its defaults",
        f"{q['seconds']:.1f}",
        f"test accuracy {q['test_accuracy']:.4f}",
    ],
    "wide": lambda w: [
        f"{w['rows']:,} rows, {w['classes']:,} classes (synthetic), {w['strengths']} strengths",
        f"{w['seconds']:.0f}",
        f"peak memory {w['peak_gib']:.1f} GiB",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FASHION)
    parser.add_argument("--only", choices=["versus", *list(PARTS)[1:]])
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--part", choices=[*PARTS, "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--strengths", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.build = BUILD / "head"
    options.build.mkdir(parents=True, exist_ok=True)
    missing = [name for names in FILES.values() for name in names if not (options.data / name).is_file()]
    if missing:
        parser.error(f"{options.data} lacks {', '.join(missing)}; name the folder of Fashion-MNIST's files with --data")
    data = fashion(options.data, options.build)
    if options.part:
        measurements = (
            theirs(data, np.array(json.loads(options.strengths.read_text(encoding="utf-8"))))
            if options.part == "theirs"
            else PARTS[options.part](data)
        )
        options.out.write_text(json.dumps(measurements), encoding="utf-8")
        return
    results: Json = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions_of_both(),
        "found": {},
    }
    for part in [options.only] if options.only else ["versus", *list(PARTS)[1:]]:
        results["found"][part] = versus(options) if part == "versus" else in_a_process(part, options)
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_head(results, head_text(results), target))


def versions_of_both() -> dict[str, str]:
    return {name: versions()[name] for name in ("python", "numpy")} | {"scikit-learn": version("scikit-learn")}


if __name__ == "__main__":
    main()
