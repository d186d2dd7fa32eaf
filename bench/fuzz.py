"""Mutated files and monsters through everything that decodes: all stages, `graft classify` and the packaged model.

    python -m bench.fuzz                                5,000 mutations and the monsters; an hour on two cores
    python -m bench.fuzz --mutations 100 --no-monsters  a smoke test

Each part runs in a process of its own. What is reported of it: whether it crashed, how many files it used, the longest
time that one image took to decode, and the peak of the memory of the process and its children.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.images import reading

from .fuzzing import encoded, monsters, mutations, photo

PARTS = ("preprocess", "features", "rest", "classify", "package")
BACKBONE = "test_efficientnet"
SECTIONS: dict[str, dict[str, Any]] = {
    "preprocess": {"max_rejected": 1_000_000, "min_side": 1, "range": (0, 255)},
    "features": {"backbone": BACKBONE, "weights": "random", "precision": "f32"},
    "head": {"folds": 0, "strengths": 7},
    "audit": {"folds": 3, "curve_seeds": 1},
    "finetune": {"mode": "off"},
    "evaluate": {"saliency": 4},
    "register": {"smoke_images": 16},
}
SOUND = 60
"""Ordinary images beside the others, so that there is something to learn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=5_000)
    parser.add_argument("--no-monsters", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("build/bench/fuzz"))
    parser.add_argument("--part", choices=PARTS, help="run one part in this process")
    options = parser.parse_args()
    paths = Paths(options.folder.resolve())
    if options.part:
        print(json.dumps(run_part(options.part, paths)))
        return
    write_files(paths, options.mutations, options.seed, with_monsters=not options.no_monsters)
    failed = False
    for part in PARTS:
        found = watched([sys.executable, "-m", "bench.fuzz", "--folder", str(options.folder), "--part", part])
        failed = failed or found["exit"] != 0
        print(f"{part}: {json.dumps(found)}", flush=True)
    sys.exit(failed)


def write_files(paths: Paths, count: int, seed: int, *, with_monsters: bool) -> None:
    """data/raw with two classes."""
    shutil.rmtree(paths.root, ignore_errors=True)
    files = {f"sound-{n:03}.png": encoded(photo(48 + n % 9, 40, n), "PNG") for n in range(SOUND)}
    files |= {f"mutated-{n:05}.bin": content for n, content in enumerate(mutations(count, seed))}
    files |= {f"monster-{name}.bin": content for name, content in (monsters() if with_monsters else {}).items()}
    for number, (name, content) in enumerate(files.items()):
        place = paths.raw / ("one", "two")[number % 2] / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def watched(command: list[str]) -> dict[str, Any]:
    """Runs a part; what it tells of itself, its exit code, its seconds and the peak memory of all its processes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, memory_of(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    told = process.communicate()[0].strip().splitlines()
    done.set()
    watcher.join()
    facts = json.loads(told[-1]) if process.returncode == 0 else {}
    seconds = round(time.perf_counter() - started, 1)
    return {"exit": process.returncode, "seconds": seconds, "peak_mb": round(peak / 1e6), **facts}


def memory_of(pid: int) -> int:
    """Bytes of a process and its children."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in family:
        try:
            if one.pid == pid or one.cmdline() != family[0].cmdline():  # a child that has only begun shares all memory
                total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


class Watch:
    """Times every decoding of this process."""

    def __init__(self) -> None:
        self.decoded = 0
        self.slowest = 0.0
        for name in ("decode_image", "decode_apart"):
            setattr(reading, name, self._timed(getattr(reading, name)))

    def _timed(self, decode: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            started = time.perf_counter()
            try:
                return decode(*given)
            finally:
                self.decoded += 1
                self.slowest = max(self.slowest, time.perf_counter() - started)

        return timed


def run_part(part: str, paths: Paths) -> dict[str, Any]:
    watch = Watch()
    facts = {"classify": classify, "package": package}[part](paths) if part in PARTS[3:] else stages(part, paths)
    return {**facts, "decoded": watch.decoded, "slowest_seconds": round(watch.slowest, 2)}


def stages(part: str, paths: Paths) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for stage in STAGES[2:] if part == "rest" else (part,):
        section = getattr(importlib.import_module(f"graft.tasks.{stage}.params"), f"{stage.capitalize()}Params")
        extra = [{}] if stage == "preprocess" else []
        body = importlib.import_module(f"graft.tasks.{stage}.stage")
        facts |= {"images": body.run(section(**SECTIONS[stage]), paths, *extra).metrics.get("images")}
    return facts


def classify(paths: Paths) -> dict[str, Any]:
    from graft.flows.backbones.classify import Classifier, files_of

    graph = backbone_graph(BACKBONE, find_weights(BACKBONE, "random", paths.weights), paths.cache)
    labels = [(str(k), str(k)) for k in range(graph.spec.dimension)]
    seen = list(Classifier(graph, labels).look(files_of([paths.raw]), 1))
    return {"images": sum(not one.error for one in seen), "refused": sum(bool(one.error) for one in seen)}


def package(paths: Paths) -> dict[str, Any]:
    from graft.tasks.register.serving import ImageClassifier

    model, answered, refused = ImageClassifier(paths.package), 0, 0
    for file in sorted(paths.raw.rglob("*")):
        if file.is_file():
            try:
                model.predict([file.read_bytes()])
                answered += 1
            except ValueError:
                refused += 1
    return {"images": answered, "refused": refused}


if __name__ == "__main__":
    main()
