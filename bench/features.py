"""Files to features: Graft beside what others run, on the same photographs and the same network, in one run.

    python -m bench.features --photos FOLDER            all contestants, about 25 minutes on two cores
    python -m bench.features --photos FOLDER --quick    a smoke test

`--publish` writes bench/results/features.json, docs/explanation/benchmarks.md and the plot; without it, all goes to
build/bench.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import report
from .peers.measurements import STARTED
from .photos import make_photos, name_of
from .processes import BUILD, PEERS, ROOT, Failed, compiler, machine, peer_python, say, timed, versions
from .project import Project

BACKBONES = ("tf_efficientnet_lite0", "resnet50")

WEIGHTS = {"tf_efficientnet_lite0": "auto"}
"""Those that can be had without a network; `random` for others, with which everything takes as long."""

BUSY = 0.5
"""The load above which there is a warning."""

ADDED = 0.01
"""The share of images that contestant (g) adds."""


@dataclass(frozen=True)
class Settings:
    """What is measured how often.

    Attributes:
        images: photographs that Graft sees.
        peer_images: photographs that the peers see, whose cost an image does not depend on the number.
        repetitions: of everything.
        only: letters of the contestants; `p` are the parts (decode only, forward only).
    """

    images: int
    peer_images: int
    repetitions: int
    only: str

    @property
    def added(self) -> int:
        return max(1, round(ADDED * self.images))


@dataclass(frozen=True)
class Bench:
    """One backbone, ready to be measured: the project, the peers' photographs and networks."""

    backbone: str
    settings: Settings
    photos: Path
    project: Project
    subset: Path
    model: Path

    @property
    def names(self) -> list[str]:
        return [name_of(number) for number in range(self.settings.images)]


# ---------------------------------------------------------------- the peers: (a) to (d)


def torch_peer(bench: Bench, mode: str, repetition: int) -> dict[str, Any]:
    """With 0, 1 and 2 workers the first time, then with the number that was best."""
    label = f"torch-{mode}"
    last = BUILD / "peers" / bench.backbone / label / "measurements.json"
    workers = ["0", "1", "2"]
    if repetition and last.is_file():
        loops = json.loads(last.read_text(encoding="utf-8"))["loop_seconds"]
        workers = [min(loops, key=loops.__getitem__)]
    return _peer(bench, label, sys.executable, "torch_loop", "--mode", mode, "--workers", *workers)


def keras_peer(bench: Bench) -> dict[str, Any]:
    return _peer(bench, "keras", peer_python(), "keras_predict")


def onnx_peer(bench: Bench) -> dict[str, Any]:
    return _peer(bench, "onnx", peer_python(), "onnx_threads")


def _peer(bench: Bench, label: str, python: str | Path | None, module: str, *more: str) -> dict[str, Any]:
    """Runs a peer; its measurements, the seconds of the whole process and the cosine of its features to Graft's."""
    if python is None:
        raise Failed(f"{PEERS.name} is not there; `make bench` makes it")
    out = BUILD / "peers" / bench.backbone / label
    out.mkdir(parents=True, exist_ok=True)
    words = [python, "-m", f"bench.peers.{module}", "--backbone", bench.backbone, "--folder", bench.subset]
    whole = timed([*words, "--model", bench.model, "--out", out, *more], ROOT, **{STARTED: repr(time.time())})
    measurements = json.loads((out / "measurements.json").read_text(encoding="utf-8"))
    files = measurements.pop("files")
    measurements["whole_seconds"] = round(whole, 3)
    if label != "keras":
        measurements["cosine_to_graft"] = _cosine(bench.project, files, np.load(out / "features.npy"))
    return measurements


def _cosine(project: Project, files: list[str], features_ND: np.ndarray[Any, Any]) -> float:
    """The least cosine between a peer's and Graft's features of the same file: that both did the same work."""
    folder = project.root / "data" / "features"
    rows = pd.read_parquet(folder / "index.parquet").reset_index().set_index("path").loc[files, "index"]
    own_ND = np.load(folder / "features.npy", mmap_mode="r")[rows.to_numpy()]
    norms = np.linalg.norm(own_ND, axis=1) * np.linalg.norm(features_ND, axis=1)
    return round(float(((own_ND * features_ND).sum(axis=1) / norms).min()), 6)


# ---------------------------------------------------------------- Graft: (e) to (g)


def graft_cold(bench: Bench) -> dict[str, Any]:
    """(e) All features again; the graph has been converted and compiled before."""
    bench.project.forget_features()
    return _features(bench.project, computed=bench.settings.images)


def graft_warm(bench: Bench) -> dict[str, Any]:
    """(f) Nothing is new, and the stages are made to run all the same."""
    return _in_repro(bench.project, 0, "--force")


def graft_added(bench: Bench, repetition: int) -> dict[str, Any]:
    """(g) 1 % more images, other ones each time; afterwards they are taken away again."""
    first = bench.settings.images + repetition * bench.settings.added
    names = [name_of(number) for number in range(first, first + bench.settings.added)]
    project = bench.project
    project.add(bench.photos, names)
    found = _in_repro(project, len(names))
    project.remove(names)
    project.repro()
    return found


def _in_repro(project: Project, computed: int, *words: str) -> dict[str, Any]:
    """Both stages in one `dvc repro features`: the command's seconds, and those of each stage's process."""
    run = project.repro(*words)
    misses = run["stages"]["features"]["cache_misses"]
    if misses != computed:
        raise Failed(f"{misses} images were computed where {computed} were new")
    seconds = {f"{name}_seconds": metrics["seconds"] for name, metrics in run["stages"].items()}
    return {"images": computed, "whole_seconds": run["whole_seconds"], **seconds}


def _features(project: Project, computed: int) -> dict[str, Any]:
    """The features stage; its loop is from the first file opened to the last feature in the cache on disk."""
    run = project.stage("features")
    metrics = run["metrics"]
    if metrics["cache_misses"] != computed:
        raise Failed(f"{metrics['cache_misses']} images were computed where {computed} were new")
    loop = computed / metrics["images_per_second"] if computed else 0.0
    return {**run, "images": computed, "loop_seconds": round(loop, 3)}


def parts(bench: Bench) -> dict[str, Any]:
    """Decode only and forward only, with Graft's own loader and engine."""
    out = BUILD / f"parts-{bench.backbone}.json"
    timed([sys.executable, "-m", "bench.parts", "--out", out], bench.project.root)
    return json.loads(out.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- the run


def prepare(backbone: str, settings: Settings, photos: Path) -> tuple[Bench, dict[str, Any]]:
    """The project with its images checked, the first-ever run of features, and the peers' networks."""
    say(f"{backbone}: making the project")
    parameters = {"backbone": backbone, "weights": WEIGHTS.get(backbone, "random")}
    project = Project.create(BUILD / f"project-{backbone}", parameters)
    bench = Bench(
        backbone, settings, photos, project, subset(photos, settings.peer_images), BUILD / "models" / backbone
    )
    project.add(photos, bench.names)
    project.dvc_add()
    preprocess = project.stage("preprocess")
    first = _features(project, computed=settings.images)
    onnx = [f"--onnx={site}" for site in sorted(PEERS.glob("lib/python*/site-packages"))[:1]]
    timed([sys.executable, "-m", "bench.peers.prepare", "--out", bench.model, *onnx], project.root)
    return bench, {"preprocess": preprocess, "features": first}


def subset(photos: Path, count: int) -> Path:
    """A folder a class with the first `count` photographs, for the peers."""
    folder = BUILD / "subset"
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        target = folder / name_of(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos / name_of(number), target)
    return folder


def contestants(bench: Bench) -> dict[str, Callable[[int], dict[str, dict[str, Any]]]]:
    """Name -> what measures it once. Graft's three come one after another, for each needs the one before."""
    graft: dict[str, Callable[[int], dict[str, Any]]] = {
        "e": lambda _: graft_cold(bench),
        "f": lambda _: graft_warm(bench),
        "g": lambda repetition: graft_added(bench, repetition),
    }
    only = bench.settings.only
    chosen: dict[str, Callable[[int], dict[str, dict[str, Any]]]] = {
        "a": lambda repetition: {"a": torch_peer(bench, "eager", repetition)},
        "b": lambda repetition: {"b": torch_peer(bench, "bf16", repetition)},
        "c": lambda _: {"c": keras_peer(bench)},
        "d1": lambda _: {"d1": onnx_peer(bench)},
        "d2": lambda repetition: {"d2": torch_peer(bench, "compiled", repetition)},
        "graft": lambda repetition: {
            letter: measure(repetition) for letter, measure in graft.items() if letter in only
        },
        "p": lambda _: {"p": parts(bench)},
    }
    absent = ([] if peer_python() else ["c", "d1"]) + ([] if compiler() else ["d2"])
    for name in absent:
        del chosen[name]
    wanted = set(only) | ({"g"} if set(only) & {"e", "f"} else set())
    return {name: measure for name, measure in chosen.items() if name[0] in wanted}


def measure_all(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """Contestant -> what each repetition gave. All take part in every repetition; who begins moves on by one."""
    raw: dict[str, list[dict[str, Any]]] = {}
    everyone = list(contestants(bench).items())
    for repetition in range(bench.settings.repetitions):
        begin = repetition % len(everyone)
        for name, measure in everyone[begin:] + everyone[:begin]:
            say(f"{bench.backbone}: repetition {repetition + 1} of {bench.settings.repetitions}, {name}")
            try:
                measured = measure(repetition)
            except Failed as error:
                if name == "graft":
                    raise
                say(f"{name} is left out of this repetition: {error}")
                continue
            for letter, measurements in measured.items():
                raw.setdefault(letter, []).append(measurements)
    return dict(sorted(raw.items()))


def run(backbones: list[str], settings: Settings, source: Path) -> dict[str, Any]:
    """All raw measurements, with the machine that they are of."""
    facts = machine()
    photos = BUILD / "photos"
    shutil.rmtree(BUILD / "peers", ignore_errors=True)
    if facts["load_before"] > BUSY:
        say(f"this machine is busy (load {facts['load_before']}): the measurements will not mean much")
    say("making the photographs")
    make_photos(source, photos, settings.images + settings.added * settings.repetitions)
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": facts,
        "versions": versions(),
        "settings": {**asdict(settings), "added": settings.added},
        "backbones": {},
    }
    for backbone in backbones:
        bench, first = prepare(backbone, settings, photos)
        raw = {"first": [first], **measure_all(bench)}
        results["backbones"][backbone] = {"weights": WEIGHTS.get(backbone, "random"), "raw": raw}
        results["backbones"][backbone]["medians"] = report.medians(raw, settings.images)
    return results


def main() -> None:
    options = arguments()
    settings = Settings(options.images, min(options.peer_images, options.images), options.repetitions, options.only)
    started = time.perf_counter()
    results = run(options.backbone or list(BACKBONES), settings, options.photos)
    results["minutes"] = round((time.perf_counter() - started) / 60, 1)
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_features(results, target))
    say(f"{results['minutes']} minutes; {os.path.relpath(target.json('features'))}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=ROOT / "data" / "raw", help="JPEGs to cut (default: data/raw)")
    parser.add_argument("--backbone", action="append", choices=BACKBONES, help="may be repeated; default: both")
    parser.add_argument("--images", type=int, default=2000, help="photographs that Graft sees")
    parser.add_argument("--peer-images", type=int, default=256, help="photographs that (a) to (d) see")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", default="abcdefgp", help="letters, as in a,b,e; p: decode only and forward only")
    parser.add_argument("--quick", action="store_true", help="96 images, 64 for the peers, one repetition")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args()
    options.only = "".join(letter for letter in "abcdefgp" if letter in options.only)
    if options.quick:
        options.images, options.peer_images, options.repetitions = 96, 64, 1
    if options.publish and (options.quick or options.only != "abcdefgp"):
        parser.error("only a full run is published: leave out --publish, or --quick and --only")
    return options


if __name__ == "__main__":
    main()
