"""Decoding alone and the network alone, with Graft's own loader and engine; run in a project whose features are made.

    python -m bench.parts --out measurements.json

Of the benchmark, only this file and peers/prepare.py call into `tasks/common`: who changes the loader or the engine
changes them. All else sees Graft from outside.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from graft.tasks.common.backbones.graph import Graph, backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.manifest import read_manifest
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import load

KEPT = 64
"""Decoded images that the network sees again and again."""

FORWARDED = 640
"""Images that the network sees at most: its cost an image does not depend on the number."""


def decode_only(files: list[Path], graph: Graph, threads: int) -> float:
    """Seconds to decode, resize and crop all files."""

    def one(file: Path) -> None:
        load(file, None, graph.spec.transform, Reading())

    with ThreadPoolExecutor(threads) as pool:
        return _seconds(lambda: list(pool.map(one, files)))


def forward_only(files: list[Path], graph: Graph, precision: str, count: int) -> float:
    """Seconds of the engine's stream over `count` images that are decoded already."""
    pixels = [load(file, None, graph.spec.transform, Reading()) for file in files[:KEPT]]
    engine = Engine(graph.xml, precision)  # type: ignore[arg-type]

    def stream(images: int) -> None:
        for _ in engine.stream(lambda i: pixels[i % len(pixels)], images):
            pass

    stream(KEPT)
    return _seconds(lambda: stream(count))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    paths = Paths(Path.cwd())
    params = yaml.safe_load(paths.params.read_text(encoding="utf-8"))["features"]
    source = find_weights(params["backbone"], params["weights"], paths.weights)
    graph = backbone_graph(params["backbone"], source, paths.cache)
    precision = read_json(paths.features / "fingerprint.json")["precision"]
    files = [paths.raw / name for name in read_manifest(paths.manifest)["path"]]
    cores, forwarded = os.cpu_count() or 1, min(len(files), FORWARDED)
    measurements = {
        "images": len(files),
        "threads": cores,
        "precision": precision,
        "decode_one_thread_seconds": decode_only(files, graph, 1),
        "decode_all_threads_seconds": decode_only(files, graph, cores),
        "forwarded_images": forwarded,
        "forward_seconds": forward_only(files, graph, precision, forwarded),
    }
    options.out.write_text(json.dumps(measurements), encoding="utf-8")


if __name__ == "__main__":
    main()
