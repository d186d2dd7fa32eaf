"""Many images, as files and in shards: import, `dvc add`, `dvc push`, a fresh clone with `dvc pull`, `dvc checkout`,
reading, features.

    python -m bench.scale --publish                  1,000, 10,000 and 50,000 images, an hour
    python -m bench.scale --images 1000 --quick      a smoke test: one number of images, no features

Both forms have the same images (PNG, 32 x 32 pixels, noise) and go through the commands that a user types, each in a
project of its own with a folder as DVC's remote on the same disk. The two forms take turns, step by step, so that what
else the machine does is the same for both. MLflow's database is made before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import report
from .processes import BUILD, machine, say, timed, versions
from .project import Project

Json = dict[str, Any]

SIZES = (1_000, 10_000, 50_000)
PIXELS, CLASSES = 32, 10
FEATURES = {"backbone": "test_efficientnet", "weights": "random"}
"""A network so small that reading and decoding decide."""

FORMS = ("files", "shards")
TOGETHER = ("import", "dvc push", "clone and pull")
"""The steps that the acceptance asks to be ten times as fast together; `import` runs `dvc add`."""

UNITS = ("seconds", "processor_seconds")
HEAD = ("step", "files", "shards", "files, processor", "shards, processor", "times as fast", "processor")

NO_STORE = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}

READ = """
import sys
from pathlib import Path
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import content_of
from graft.tasks.preprocess.scan import list_files
raw = Path(sys.argv[1])
for name in list_files(raw):
    with content_of(raw / name, Limits()):
        pass
"""


@dataclass
class Form:
    """One form of the images: a project with a remote of its own, and the seconds of each step."""

    name: str
    folder: Path
    steps: dict[str, Json]

    @property
    def project(self) -> Project:
        return Project(self.folder / "project")

    @property
    def clone(self) -> Project:
        return Project(self.folder / "clone")

    def step(self, name: str, work: Callable[[], object]) -> None:
        """Wall and processor seconds of `work`, whose processes have ended when it returns."""
        before, started = _processor(), time.perf_counter()
        work()
        self.steps[name] = {
            "seconds": round(time.perf_counter() - started, 3),
            "processor_seconds": round(_processor() - before, 3),
        }
        say(f"  {self.name}: {name} {self.steps[name]}")


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def draw(folder: Path, images: int) -> Path:
    """Noise in folders of classes, the same for the same number."""
    for number in range(images):
        file = folder / f"class-{number % CLASSES}" / f"{number:06}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, compress_level=1)
    return folder


def graft(project: Project, *words: str, **more: str) -> None:
    timed([sys.executable, "-m", "graft.flows.cli", *words], project.root, **more)


def dvc(project: Project, *words: str) -> None:
    timed([sys.executable, "-m", "dvc", *words], project.root)


def create(name: str, folder: Path) -> Form:
    form = Form(name, folder / name, {})
    shutil.rmtree(form.folder, ignore_errors=True)
    Project.create(form.project.root, FEATURES)
    dvc(form.project, "remote", "add", "--default", "bench", str(form.folder / "remote"))
    return form


def bring(form: Form, source: Path) -> None:
    graft(form.project, "import", str(source), *(["--shards"] if form.name == "shards" else []), **NO_STORE)
    form.project.git("add", "--all")
    form.project.git("commit", "--quiet", "--message", "images")


def clone_and_pull(form: Form) -> None:
    timed(["git", "clone", "--quiet", str(form.project.root), str(form.clone.root)], form.folder)
    dvc(form.clone, "pull", "--quiet", "data/raw.dvc")


def check_out(form: Form) -> None:
    shutil.rmtree(form.clone.root / "data" / "raw")
    dvc(form.clone, "checkout", "--quiet", "data/raw.dvc")


def read(form: Form) -> None:
    timed([sys.executable, "-c", READ, str(form.clone.root / "data" / "raw")], form.clone.root)


def measure(images: int, build: Path, *, features: bool) -> Json:
    """All steps for one number of images, both forms in turns."""
    say(f"scale: {images:,} images")
    folder = build / f"scale-{images}"
    shutil.rmtree(folder, ignore_errors=True)
    source = draw(folder / "source", images)
    forms = [create(name, folder) for name in FORMS]
    steps: list[tuple[str, Callable[[Form], object]]] = [
        ("import", lambda form: bring(form, source)),
        ("dvc push", lambda form: dvc(form.project, "push", "--quiet")),
        ("clone and pull", clone_and_pull),
        ("dvc checkout", check_out),
        ("reading", read),
    ]
    for name, work in steps:
        for form in forms:
            form.step(name, partial(work, form))
    same = {_content(form.clone.root / "data" / "raw") for form in forms}
    found: Json = {"images": images, "forms": {form.name: form.steps for form in forms}, "same_images": len(same) == 1}
    if features:
        found |= {"features": {form.name: _features(form) for form in forms}, "found": _found(forms[0])}
    shutil.rmtree(folder)
    return found


def _content(raw: Path) -> str:
    """A hash of the names and md5s of all images."""
    from graft.tasks.common.images.shards import hash_of
    from graft.tasks.preprocess.scan import list_files

    return hashlib.md5("".join(f"{name} {hash_of(raw / name)}\n" for name in list_files(raw)).encode()).hexdigest()


def _features(form: Form) -> Json:
    """Of the stages `preprocess` and `features`, in a project whose cache is empty."""
    form.project.forget_features()
    stages = form.project.repro("--force")["stages"]
    return {name: stages[name] for name in ("preprocess", "features")}


def _found(files: Form) -> Json:
    """Features that are found in the cache after `graft shard`: the metrics of the stage."""
    graft(files.project, "shard", **NO_STORE)
    return dict(files.project.repro()["stages"]["features"])


def with_sums(found: Json) -> dict[str, dict[str, Json]]:
    """The steps of both forms, and `TOGETHER`."""
    told = {}
    for form, steps in found["forms"].items():
        sums = {unit: sum(steps[name][unit] for name in TOGETHER) for unit in UNITS}
        told[form] = {**steps, ", ".join(TOGETHER): sums}
    return told


def ratios(found: Json) -> dict[str, list[float]]:
    """How many times as fast shards are, by step: by the clock, and by the processor."""
    files, shards = (with_sums(found)[name] for name in FORMS)
    return {name: [files[name][unit] / max(shards[name][unit], 1e-3) for unit in UNITS] for name in files}


def text(results: Json) -> str:
    """All that stands between the markers `scale` of the page."""
    parts = [
        f"{results['date']}; PNG images of {PIXELS} x {PIXELS} pixels, a folder as DVC's remote on the same disk. "
        f"{report.machine_text(results['machine'])}"
    ]
    for found in results["sizes"]:
        steps = with_sums(found)
        rows = []
        for name, faster in ratios(found).items():
            spent = [steps[form][name][unit] for unit in UNITS for form in FORMS]
            rows.append([name, *(f"{each:.1f}" for each in (*spent, *faster))])
        parts.append(f"{found['images']:,} images, seconds by the clock and of the processor:")
        parts.append(report.table(HEAD, rows))
        parts += _features_text(found)
    return "\n\n".join(parts)


def _features_text(found: Json) -> list[str]:
    if "features" not in found:
        return []
    rates = {name: each["features"]["images_per_second"] for name, each in found["features"].items()}
    known = found["found"]
    return [
        f"Images a second for features with `{FEATURES['backbone']}`: {rates['files']:,.0f} from files, "
        f"{rates['shards']:,.0f} from shards. After `graft shard`, {known['cache_hits']:,} of {found['images']:,} are "
        "found in the cache."
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=SIZES, help="numbers of images")
    parser.add_argument("--quick", action="store_true", help="without features")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args(words)
    results: Json = {"date": date.today().isoformat(), "machine": machine(), "versions": versions(), "sizes": []}
    for images in options.images:
        results["sizes"].append(measure(images, BUILD, features=not options.quick))
        say(json.dumps(ratios(results["sizes"][-1])))
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("scale", results, text(results), target))


if __name__ == "__main__":
    main()
