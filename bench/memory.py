"""Peak memory of the features stage and its cost an image, by the number of images.

python -m bench.memory              1,000, 5,000, 20,000 and 50,000 images of 96 x 96 pixels
python -m bench.memory --quick      a smoke test
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from PIL import Image

from . import report
from .processes import BUILD, Failed, environment, machine, say, versions
from .project import Project

SIDE = 96
"""Pixels: small, so that 50,000 files are made and read in minutes. Memory does not depend on it: the ring does not."""

TICK = 0.2
"""Seconds between two looks at a process; its peak is kept by the system itself and needs none."""


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    sizes: tuple[int, ...]
    backbone: str
    weights: str
    repetitions: int


@dataclass
class Watch:
    """Peaks of a running process, in MiB, sampled: its anonymous memory, and all of its tree."""

    process: psutil.Process
    peak_anonymous_mib: float = 0.0
    peak_tree_mib: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(TICK):
            with suppress(psutil.Error, OSError):
                self.peak_anonymous_mib = max(self.peak_anonymous_mib, _anonymous(self.process.pid))
                tree = [self.process, *self.process.children(recursive=True)]
                self.peak_tree_mib = max(self.peak_tree_mib, sum(p.memory_info().rss for p in tree) / 2**20)


def _anonymous(pid: int) -> float:
    """MiB that belong to no file; 0 where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def watched_stage(project: Project, stage: str) -> dict[str, Any]:
    """Runs a stage; its peaks in MiB, its seconds and metrics.

    Raises:
        Failed: the stage failed.
    """
    found = watched([sys.executable, "-m", "graft.flows.stage", stage], project.root, BUILD / "memory.log")
    project.settle()
    return {**found, "metrics": project.metrics(stage)}


def watched(words: list[str], cwd: Path, log: Path, **more: str) -> dict[str, Any]:
    """Runs a process; its peaks in MiB and its seconds, by the clock and of the processor.

    `peak_mib` is the system's own record of the largest process that ended (this one; it waits for no larger one).

    Args:
        log: the file for what it prints.
        more: environment variables.

    Raises:
        Failed: it ended with another code than 0; with the last that it printed.
    """
    started = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(words, cwd=cwd, env=environment(**more), stdout=output, stderr=output)
        with Watch(psutil.Process(child.pid)) as watch:
            _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if child.returncode:
        raise Failed(f"{' '.join(words)}\n{log.read_text(encoding='utf-8')[-4000:]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    return {
        "peak_mib": round(usage.ru_maxrss / unit, 1),
        "peak_anonymous_mib": round(watch.peak_anonymous_mib, 1),
        "peak_tree_mib": round(max(watch.peak_tree_mib, usage.ru_maxrss / unit), 1),
        "whole_seconds": round(seconds, 3),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 3),
    }


def draw(number: int, target: Path) -> str:
    """Writes image `number`, a smooth random picture that no other number gives; returns its path below `target`."""
    name = f"{'first' if number % 2 else 'second'}/{number // 1000:03}/image-{number:06}.jpg"
    path = target / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)
    return name


def grow(project: Project, first: int, count: int) -> None:
    """Images `first` to `count` - 1 are drawn, put under DVC and checked."""
    raw = project.root / "data" / "raw"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda number: draw(number, raw), range(first, count)))
    project.dvc_add()


def measure(project: Project, images: int, repetitions: int) -> dict[str, Any]:
    """Cold runs, then a warm one, of the images that the project has now; its graph is there."""
    cold = []
    for _ in range(repetitions):
        project.forget_features()
        cold.append(watched_stage(project, "features"))
        if cold[-1]["metrics"]["cache_misses"] != images:
            raise Failed(f"{cold[-1]['metrics']['cache_misses']} images were computed, not {images}")
    return {"images": images, "cold": cold, "warm": watched_stage(project, "features")}


def summary(raw: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    peaks = {
        name: max(run[name] for run in raw["cold"]) for name in ("peak_mib", "peak_anonymous_mib", "peak_tree_mib")
    }
    rate = median(run["metrics"]["images_per_second"] for run in raw["cold"])
    return {
        "images": raw["images"],
        **peaks,
        "milliseconds_an_image": round(1000 / rate, 4),
        "whole_seconds": median(run["whole_seconds"] for run in raw["cold"]),
        "warm_seconds": raw["warm"]["whole_seconds"],
        "warm_peak_mib": raw["warm"]["peak_mib"],
    }


def run(settings: Settings) -> dict[str, Any]:
    """One project that grows from size to size."""
    facts = machine()
    parameters = {"backbone": settings.backbone, "weights": settings.weights}
    project = Project.create(BUILD / "project-memory", parameters)
    raw, first, there = [], None, 0
    for images in settings.sizes:
        say(f"memory: {images:,} images")
        grow(project, there, images)
        preprocess = watched_stage(project, "preprocess")
        first = first or watched_stage(project, "features")
        raw.append({"preprocess": preprocess, **measure(project, images, settings.repetitions)})
        there = images
    return {
        "date": date.today().isoformat(),
        "machine": facts,
        "versions": versions(),
        "settings": asdict(settings),
        "medians": [summary(size) for size in raw],
        "first": first,
        "raw": raw,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--backbone", default="test_efficientnet", help="any timm model; default: a tiny one")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="60 and 120 images, one repetition")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args()
    if options.quick:
        options.images, options.repetitions = [60, 120], 1
    if options.publish and options.quick:
        parser.error("a smoke test is not published: leave out --publish or --quick")
    sizes = tuple(sorted(set(options.images)))
    results = run(Settings(sizes, options.backbone, options.weights, options.repetitions))
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_memory(results, target))


if __name__ == "__main__":
    main()
