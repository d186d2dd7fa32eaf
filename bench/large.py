"""Peak memory and processor seconds of each stage, by the number of images, and of the head at a million rows.

    python -m bench.large                   10,000 and 100,000 images, a head of 1,000,000 rows
    python -m bench.large --quick           a smoke test
    python -m bench.large --publish         writes the table of docs/explanation/benchmarks.md

Images are generated, 32 pixels a side, one in a hundred a copy of another, saved again. Their features are generated
too, 1,280 values in half precision as `tf_efficientnet_lite0` gives them, and lie in the feature cache; but for 64 test
images, whose features that network computes, so that the stage `register` can check its package.

Peaks are the system's own record of each process. What is mapped from files (the page cache) is given back when memory
is needed, and is counted apart: anonymous memory is not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from graft.tasks.audit.params import AuditParams
from graft.tasks.audit.stage import run as audit
from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import RowFile
from graft.tasks.common.data.manifest import read_manifest, write_table
from graft.tasks.common.feature_cache.segments import SEGMENT, FeatureCache, ids_of
from graft.tasks.evaluate.params import EvaluateParams
from graft.tasks.evaluate.stage import run as evaluate
from graft.tasks.features.params import FeaturesParams
from graft.tasks.features.stage import run as features
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.finetune.stage import run as finetune
from graft.tasks.head.params import HeadParams
from graft.tasks.head.stage import run as head
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.preprocess.stage import run as preprocess
from graft.tasks.register.params import RegisterParams
from graft.tasks.register.stage import run as register

from . import report
from .memory import watched
from .processes import BUILD, ROOT, machine, say, versions

SIZES, MILLION, WIDTHS = (10_000, 100_000), 1_000_000, (256, 1_280)
SIDE, K, REAL, COPIES = 32, 10, 64, 100
BLOCK = 8_192
FEATURES = FeaturesParams.model_validate(
    {"backbone": "tf_efficientnet_lite0", "weights": "package", "dtype": "float16"}
)

Json = dict[str, Any]


# ---------------------------------------------------------------- data


def draw(paths: Paths, images: int) -> None:
    """Images of `K` classes; every hundredth is a copy of the one before it, saved again as JPEG."""
    for place in range(images):
        is_copy = place % COPIES == COPIES - 1
        rng = np.random.default_rng(place - is_copy)
        colour = np.random.default_rng([1, place % K]).integers(60, 196, 3)
        coarse = (colour + rng.integers(-60, 60, (5, 5, 3))).astype(np.uint8)
        file = paths.raw / f"class-{place % K}" / f"{place:07}.{'jpg' if is_copy else 'png'}"
        if place < K:
            file.parent.mkdir(parents=True)
        content = io.BytesIO()
        picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(content, *(("JPEG",) if is_copy else ("PNG",)), **({"quality": 90} if is_copy else {}))
        file.write_bytes(content.getvalue())


def block_of(number: int, rows: int, d: int) -> npt.NDArray[np.float16]:
    """Generated features of rows of `K` classes in turn; every hundredth is close to the one before it."""
    spread_D = np.geomspace(1, 0.05, d, dtype=np.float32)
    centre_KD = np.random.default_rng(0).standard_normal((K, d), np.float32) * spread_D
    rng = np.random.default_rng([7, number])
    x_BD = rng.standard_normal((rows, d), np.float32) * spread_D
    x_BD += 0.3 * centre_KD[(number * rows + np.arange(rows)) % K]
    copies = np.arange(COPIES - 1, rows, COPIES)
    x_BD[copies] = x_BD[copies - 1] + 0.1 * rng.standard_normal((len(copies), d), np.float32) * spread_D
    return x_BD.astype(np.float16)


def fill_cache(paths: Paths) -> None:
    """Runs the stage `features` of a few test images, and gives all others generated features."""
    manifest = read_manifest(paths.manifest)
    few = manifest[manifest["split"] == "test"].head(REAL)
    write_table(few.reset_index(drop=True), paths.manifest / "manifest.parquet")
    features(FEATURES, paths)
    write_table(manifest, paths.manifest / "manifest.parquet")
    fingerprint = read_json(paths.features / "fingerprint.json")
    cache = FeatureCache(paths.cache / "features" / fingerprint["digest"], fingerprint["dimension"], "float16")
    others = manifest[~manifest["path"].isin(few["path"])]
    number = others["path"].str.extract(r"(\d{7})", expand=False).astype(int)
    ids = ids_of(list(others["image_id"].iloc[number.argsort()]))
    with cache:
        for place in range(0, len(ids), BLOCK):
            part = ids[place : place + BLOCK]
            block_BD = block_of(place // BLOCK, BLOCK, cache.dimension)
            for few in blocks(len(part), SEGMENT):
                cache.add(part[few], block_BD[few].astype(np.float32))


def million(paths: Paths, rows: int, d: int) -> None:
    """A feature set without images, half of it as if written by the stage."""
    paths.features.mkdir(parents=True)
    file = RowFile(paths.features / "features.npy", (rows, d), np.float16)
    for number in range(-(-rows // BLOCK)):
        places = np.arange(number * BLOCK, min((number + 1) * BLOCK, rows))
        file.write(places, block_of(number, BLOCK, d)[: len(places)])
    np.save(paths.features / "views.npy", np.empty((0, d), np.float16))
    split_N = np.array(["train"] * 8 + ["val", "test"])[np.random.default_rng(1).integers(0, 10, rows)]
    ids = [hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest() for n in range(rows)]
    table = {"image_id": ids, "path": [f"{n}.png" for n in range(rows)], "label": [f"{n % K}" for n in range(rows)]}
    index = pd.DataFrame({**table, "task": "classification", "split": split_N, "group": None, "weight": 1.0})
    write_table(index.assign(pixels=ids), paths.features / "index.parquet")
    (paths.features / "fingerprint.json").write_text("{}", encoding="utf-8")


# ---------------------------------------------------------------- steps, each a process of its own

STAGES: dict[str, Callable[[Paths], object]] = {
    "preprocess": lambda paths: preprocess(PreprocessParams(), paths, {}),
    "features": lambda paths: features(FEATURES, paths),
    "head": lambda paths: head(HeadParams(), paths),
    "audit": lambda paths: audit(AuditParams(), paths),
    "finetune": lambda paths: finetune(FinetuneParams.model_validate({"mode": "off"}), paths),
    "evaluate": lambda paths: evaluate(EvaluateParams(), paths),
    "register": lambda paths: register(RegisterParams(), paths),
}
STEPS: dict[str, Callable[[Paths], object]] = {
    **STAGES,
    "fill": fill_cache,
    "ridge": lambda paths: head(HeadParams.model_validate({"kind": "ridge"}), paths),
}


def measure(step: str, paths: Paths) -> Json:
    """Peaks in MiB, seconds by the clock and of the processor."""
    words = [sys.executable, "-m", "bench.large", "--step", step, str(paths.root)]
    found = watched(words, ROOT, paths.root / f"{step}.log")
    say(f"  {step}: peak {found['peak_mib']:,.0f} MiB, {found['peak_anonymous_mib']:,.0f} anonymous, "
        f"{found['processor_seconds']:,.0f} processor seconds")  # fmt: skip
    return found


def stages(images: int) -> Json:
    say(f"large: {images:,} images")
    paths = Paths(BUILD / "large" / str(images))
    if not (paths.root / "drawn").is_file():
        shutil.rmtree(paths.root, ignore_errors=True)
        draw(paths, images)
        (paths.root / "drawn").touch()
    found = {"preprocess": measure("preprocess", paths)}
    measure("fill", paths)
    return {"images": images, "stages": found | {name: measure(name, paths) for name in STAGES if name not in found}}


def heads(rows: int, d: int) -> Json:
    say(f"large: a head of {rows:,} rows of {d:,}")
    paths = Paths(BUILD / "large" / f"rows-{rows}-{d}")
    if not (paths.features / "fingerprint.json").is_file():
        shutil.rmtree(paths.root, ignore_errors=True)
        million(paths, rows, d)
    return {"rows": rows, "features": d, "kinds": {kind: measure(kind, paths) for kind in ("head", "ridge")}}


# ---------------------------------------------------------------- the run


def text(results: Json) -> str:
    """All that stands between the markers `large` of the page."""
    sizes = results["stages"]
    top = ["stage", *(f"{one['images']:,} images: MiB (anonymous)" for one in sizes), "ms of the processor an image"]
    rows = [
        [
            f"`{stage}`",
            *(_peaks(one["stages"][stage]) for one in sizes),
            f"{1000 * sizes[-1]['stages'][stage]['processor_seconds'] / sizes[-1]['images']:.2f}",
        ]
        for stage in STAGES
    ]
    heads_top = ["head", "MiB (anonymous)", "seconds of the processor"]
    heads_rows = [
        [f"{kind}, {one['rows']:,} x {one['features']:,}", _peaks(found), f"{found['processor_seconds']:,.0f}"]
        for one in results["heads"]
        for kind, found in zip(("logistic", "ridge"), one["kinds"].values(), strict=True)
    ]
    return (
        f"{report.machine_text(results['machine'])}\n{results['date']}.\n\n{report.table(top, rows)}\n\n"
        f"{report.table(heads_top, heads_rows)}"
    )


def _peaks(found: Json) -> str:
    return f"{found['peak_mib']:,.0f} ({found['peak_anonymous_mib']:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--rows", type=int, default=MILLION, help="of the head; 0: none")
    parser.add_argument("--widths", type=int, nargs="*", default=list(WIDTHS), help="features of a row of the head")
    parser.add_argument("--quick", action="store_true", help="400 and 800 images, a head of 20,000 rows")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step[0]](Paths(Path(options.step[1])))
        return
    if options.quick:
        options.images, options.rows, options.widths = [400, 800], 20_000, [256]
    if options.publish and options.quick:
        parser.error("a smoke test is not published: leave out --publish or --quick")
    facts = machine()
    results = {
        "date": date.today().isoformat(),
        "machine": facts,
        "versions": versions(),
        "stages": [stages(images) for images in options.images],
        "heads": [heads(options.rows, d) for d in options.widths if options.rows],
    }
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("large", results, text(results), target))


if __name__ == "__main__":
    main()
