"""Copies found by an index beside all comparisons and scikit-learn: processor seconds, and the share that is found.

    python -m bench.neighbours --photos FOLDER          photographs of any number, and 20,000 and 100,000 generated rows
    python -m bench.neighbours --photos FOLDER --publish

Of each photograph there are two copies, saved again as JPEG of quality 50 and cropped by a tenth; rows are the whitened
features of `tf_efficientnet_lite0`, as the audit compares them. The index is used however few rows there are; with a
cell for every two rows, and then asks as small a share of them as of a million rows.
Generated rows lie in 256 directions at random, which is harder for an index than images; one in ten is a copy at a
cosine of 0.9 to 1. Found is what the index proposes of the pairs that all comparisons find.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from graft.tasks.audit.whitening import whitened
from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.data.matrix import spread
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.heads.base import unit_length
from graft.tasks.common.solvers import neighbours
from graft.tasks.common.solvers.neighbours import PROBES, Index

from . import report
from .processes import BUILD, machine, say, versions

BACKBONE, NEAR, AXES, ACROSS = "tf_efficientnet_lite0", 0.9, 256, 8192
SCIKIT = 20_000
"""Rows up to which scikit-learn is asked: it takes as long as all comparisons, and more memory."""

Json = dict[str, Any]
Singles = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]
"""later * N + earlier, sorted."""


# ---------------------------------------------------------------- rows


def photographs(folder: Path, most: int) -> Singles:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    files = [files[place] for place in spread(len(files), most)]
    graph = backbone_graph(BACKBONE, find_weights(BACKBONE, "package", Path("data/weights")), BUILD / "cache")
    transform = graph.spec.transform

    def load(place: int) -> npt.NDArray[np.uint8]:
        with Image.open(files[place // 3]) as opened:
            image = opened.convert("RGB")
        return transform([image, saved_again(image), cropped(image)][place % 3])

    engine = Engine(graph.xml)
    rows_ND = np.empty((3 * len(files), engine.dimension), np.float32)
    for start, batch_BD in engine.stream(load, len(rows_ND)):
        rows_ND[start : start + len(batch_BD)] = batch_BD
    return whitened(rows_ND)


def saved_again(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=50)
    return Image.open(content).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    left, top = round(0.05 * image.width), round(0.05 * image.height)
    return image.crop((left, top, image.width - left, image.height - top))


def generated(n: int) -> Singles:
    rng = np.random.default_rng(0)
    rows_NR = unit_length(rng.standard_normal((n, AXES), np.float32))
    originals, copies = np.split(rng.permutation(n)[: n // 10 * 2], 2)
    other = unit_length(rng.standard_normal((len(copies), AXES), np.float32))
    cosine_C1 = rng.uniform(NEAR, 1, (len(copies), 1)).astype(np.float32)
    rows_NR[copies] = unit_length(cosine_C1 * rows_NR[originals] + np.sqrt(1 - cosine_C1**2) * other)
    return rows_NR


# ---------------------------------------------------------------- contestants


def everything(rows_NR: Singles) -> Pairs:
    n, found = len(rows_NR), [np.empty(0, np.int64)]
    for down in blocks(n, 1024):
        for across in blocks(down.stop, ACROSS):
            later, earlier = np.nonzero(rows_NR[down] @ rows_NR[across].T >= NEAR)
            once = across.start + earlier < down.start + later
            found.append((down.start + later[once]) * n + across.start + earlier[once])
    return np.sort(np.concatenate(found))


def by_index(rows_NR: Singles) -> Pairs:
    """As the audit does it: each block is compared with itself, asked about, and added."""
    n, found, index = len(rows_NR), [np.empty(0, np.int64)], Index(rows_NR)
    for down in blocks(n, 1024):
        later, earlier = np.nonzero(np.tril(rows_NR[down] @ rows_NR[down].T >= NEAR, -1))
        found.append((down.start + later) * n + down.start + earlier)
        place_P, row_P = index.near(rows_NR[down], NEAR)
        near = np.einsum("pr,pr->p", rows_NR[down.start + place_P], rows_NR[row_P]) >= NEAR
        found.append((down.start + place_P[near]) * n + row_P[near])
        index.add(rows_NR[down])
    return np.sort(np.concatenate(found))


def scikit(rows_NR: Singles) -> Pairs:
    from sklearn.neighbors import NearestNeighbors

    n, found = len(rows_NR), [np.empty(0, np.int64)]
    model = NearestNeighbors(metric="cosine", algorithm="brute").fit(rows_NR)
    for down in blocks(n, 1024):
        for place, near in enumerate(model.radius_neighbors(rows_NR[down], 1 - NEAR, return_distance=False)):
            found.append((down.start + place) * n + near[near < down.start + place])
    return np.sort(np.concatenate(found))


def timed(find: Callable[[Singles], Pairs], rows_NR: Singles) -> tuple[float, Pairs]:
    started = time.process_time()
    pairs = find(rows_NR)
    return time.process_time() - started, pairs


def of_photographs(folder: Path, most: int) -> list[Json]:
    rows_NR = photographs(folder, most)
    found = [compare("photographs and two copies of each", rows_NR)]
    usual, neighbours.CENTRES = neighbours.CENTRES, len(rows_NR)
    found.append(compare(f"the same in {len(rows_NR) // 2:,} cells, {PROBES} asked", rows_NR))
    neighbours.CENTRES = usual
    return found


def compare(name: str, rows_NR: Singles) -> Json:
    whole, right = timed(everything, rows_NR)
    indexed, found = timed(by_index, rows_NR)
    assert np.isin(found, right).all() or abs(len(found) - len(right)) < 0.001 * len(right), "the check is exact"
    learned = timed(scikit, rows_NR)[0] if len(rows_NR) <= SCIKIT else None
    result = {
        "rows": f"{name}, {len(rows_NR):,}",
        "pairs": len(right),
        "all_seconds": whole,
        "index_seconds": indexed,
        "scikit_seconds": learned,
        "found": float(np.isin(right, found).mean()),
    }
    say(f"neighbours: {result}")
    return result


# ---------------------------------------------------------------- the run


def text(results: Json) -> str:
    """All that stands between the markers `neighbours` of the page."""
    head = ["rows", "pairs", "all comparisons, s", "index, s", "faster by", "scikit-learn, s", "found"]
    rows = [
        [
            one["rows"],
            f"{one['pairs']:,}",
            f"{one['all_seconds']:,.1f}",
            f"{one['index_seconds']:,.1f}",
            f"{one['all_seconds'] / one['index_seconds']:,.1f} x",
            "" if one["scikit_seconds"] is None else f"{one['scikit_seconds']:,.1f}",
            f"{100 * one['found']:.2f} %",
        ]
        for one in results["rows"]
    ]
    setting = f"{report.machine_text(results['machine'])}\n{results['date']}; seconds of the processor."
    return f"{setting}\n\n{report.table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photographs")
    parser.add_argument("--most", type=int, default=2000, help="photographs at most")
    parser.add_argument("--rows", type=int, nargs="*", default=[20_000, 100_000], help="of generated ones")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args()
    facts = machine()
    found = of_photographs(options.photos, options.most) if options.photos else []
    found += [compare("generated", generated(n)) for n in options.rows]
    results = {"date": date.today().isoformat(), "machine": facts, "versions": versions(), "rows": found}
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("neighbours", results, text(results), target))


if __name__ == "__main__":
    main()
