"""Peak memory of making and of reading feature maps, by the number of images.

python -m bench.maps              1,000 and 10,000 images of 224 x 224 pixels
python -m bench.maps --quick      a smoke test
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import COLUMNS, write_table
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.maps.maps import open_maps
from graft.tasks.features import stage
from graft.tasks.features.params import FeaturesParams

from . import report
from .processes import BUILD, environment, machine, say, versions

SIDE = 224
"""Pixels."""

ADDED = 100
"""A further run has one more image for so many."""


def draw(number: int, raw: Path) -> dict[str, Any]:
    """Writes image `number`, a smooth random picture that no other number gives; returns its row of the manifest."""
    path = raw / f"{number // 1000:03}" / f"{number:06}.jpg"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (14, 14, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)
    image_id = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    named = {"image_id": image_id, "pixels": image_id, "path": path.relative_to(raw).as_posix()}
    known = {"label": "good", "task": "anomaly", "split": "train", "mode": "RGB", "weight": 1.0, "channels": 3}
    return {**named, **known, "group": None, "width": SIDE, "height": SIDE}


def write_manifest(paths: Paths, images: int) -> None:
    """Of images 0 to `images` - 1, which are drawn."""
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda number: draw(number, paths.raw), range(images)))
    table = pd.DataFrame(rows)
    types = {name: dtype for name, dtype in COLUMNS.items() if name in table}
    paths.manifest.mkdir(parents=True, exist_ok=True)
    write_table(table.astype(types), paths.manifest / "manifest.parquet")
    Reading().save(paths.manifest)


def make(paths: Paths, params: FeaturesParams) -> dict[str, Any]:
    """The stage."""
    return stage.run(params, paths).metrics


def read(paths: Paths, _: FeaturesParams) -> dict[str, Any]:
    """Every map, block by block."""
    pack = read_feature_set(paths.features)
    maps = open_maps(pack, paths)
    total = sum(len(places) for places, _ in maps.blocks(np.arange(len(pack.index))))
    return {"maps": total, "dimension": maps.form.dimension}


WORK = {"make": make, "read": read}


def child(what: str, root: Path, params: str) -> None:
    """Prints what was done, and this process' peak memory."""
    started = time.perf_counter()
    facts = WORK[what](Paths(root), FeaturesParams.model_validate_json(params))
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(json.dumps({**facts, "peak_mib": round(peak, 1), "seconds": round(time.perf_counter() - started, 1)}))


def watched(what: str, paths: Paths, params: FeaturesParams) -> dict[str, Any]:
    """In a process of its own."""
    words = [sys.executable, "-m", "bench.maps", "--child", what, str(paths.root), params.model_dump_json()]
    done = subprocess.run(words, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(paths: Paths, images: int, params: FeaturesParams) -> dict[str, Any]:
    """With an empty cache, then all read, then one per cent more images."""
    say(f"maps: {images:,} images")
    shutil.rmtree(paths.cache / "features", ignore_errors=True)
    write_manifest(paths, images)
    made, found = watched("make", paths, params), watched("read", paths, params)
    write_manifest(paths, images + max(1, images // ADDED))
    added = watched("make", paths, params)
    return {"images": images, "make": made, "read": found, "added": added}


def maps_text(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        "| images | peak of the stage, MiB | peak of reading, MiB | computed for 1 % more |",
        "| ---: | ---: | ---: | ---: |",
    ]
    rows += [
        f"| {one['images']:,} | {one['make']['peak_mib']:,.0f} | {one['read']['peak_mib']:,.0f} | "
        f"{one['added']['maps_computed']:,} |"
        for one in results["raw"]
    ]
    return "\n".join(rows)


def run(sizes: list[int], params: FeaturesParams) -> dict[str, Any]:
    paths = Paths(BUILD / "project-maps")
    write_manifest(paths, 1)
    watched("make", paths, params)  # converts the network with torch, whose memory is none of an ordinary run
    raw = [measure(paths, images, params) for images in sizes]
    shutil.rmtree(paths.cache / "features")
    facts = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
    return {**facts, "features": params.model_dump(mode="json"), "raw": raw}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="any timm model")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--quick", action="store_true", help="100 and 200 images of the smallest network")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, root, params = options.child
        return child(what, Path(root), params)
    if options.quick:
        options.images, options.backbone, options.weights = [100, 200], "test_efficientnet", "random"
    if options.publish and options.quick:
        parser.error("a smoke test is not published: leave out --publish or --quick")
    results = run(options.images, FeaturesParams(backbone=options.backbone, weights=options.weights))
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("maps", results, maps_text(results), target))


if __name__ == "__main__":
    main()
