"""Fine-tuning: Graft beside timm's training loop, Hugging Face's Trainer and fastai's `fine_tune`, in one run.

    python -m bench.finetune --labelled FOLDER --publish      FOLDER has a folder of photographs a class
    python -m bench.finetune --labelled FOLDER --only rate    images per second of a training step, nothing else
    python -m bench.finetune --labelled FOLDER --quick        a smoke test

`make bench-finetune LABELLED=FOLDER` makes the trainers' environment first. Without `--publish`, results go to
build/bench. Each contestant is a process of its own; all begin with the same weights, learn from the same images, and
are judged after each epoch on the same ones held out. A contestant's clock starts with its process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from . import report
from .peers.course import Plan
from .peers.measurements import BATCH, STARTED
from .processes import BUILD, ROOT, Failed, machine, say, timed, versions

Json = dict[str, Any]

TRAINERS = ROOT / ".venv-bench-trainers"
"""The environment of bench/requirements-trainers.txt."""

BACKBONE = "tf_efficientnet_lite0"

RATE_SIZE = 224
"""Pixels, for images per second of a step."""

HELD = 0.25
"""Share of the images on which all are judged."""

QUICK, QUICK_SIZE = 12, 64
"""Of a smoke test: images a class, and pixels."""

SUFFIXES = (".jpg", ".jpeg", ".png")

PEERS = {
    "timm_train": "timm's train.py, eager fp32",
    "huggingface_trainer": "Hugging Face's Trainer",
    "fastai_tune": "fastai's `fine_tune`",
}
OURS = {
    "all": "**Graft, all layers**",
    "last_stage": "**Graft, last stage on cached maps**",
}


def plan_of(labelled: Path, size: int, folder: Path, most: int | None = None) -> Plan:
    """A random split with seed 0; one image a class is nobody's but the test's, which Graft's stages need.

    Args:
        most: images of a class; null: all.
    """
    classes = sorted(place.name for place in labelled.iterdir() if place.is_dir())
    files = [sorted(f for f in (labelled / name).iterdir() if f.suffix.lower() in SUFFIXES) for name in classes]
    listed = [(str(file.resolve()), code) for code, of_class in enumerate(files) for file in of_class[:most]]
    order = np.random.default_rng(0).permutation(len(listed))
    mixed = [listed[place] for place in order]
    test = [next(one for one in mixed if one[1] == code) for code in range(len(classes))]
    rest = [one for one in mixed if one not in test]
    held = round(HELD * len(rest))
    return Plan(BACKBONE, str(weights(folder)), size, classes, rest[held:], rest[:held], test)


def weights(folder: Path) -> Path:
    """The network's, without its classifier, by timm's names."""
    from safetensors.torch import save_file

    from graft.tasks.common.backbones import network
    from graft.tasks.common.backbones.weights import find_weights

    model = network.create(BACKBONE, find_weights(BACKBONE, "auto", ROOT / "data" / "weights"))
    target = folder / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, target)
    return target


def run(name: str, what: str, plan: Plan, folder: Path) -> Json:
    """One contestant's log."""
    told, out = folder / "plan.json", folder / f"{name}-{what}.json"
    told.write_text(json.dumps(asdict(plan)), encoding="utf-8")
    ours = name in OURS
    python = sys.executable if ours else TRAINERS / "bin" / "python"
    module = "bench.finetune_graft" if ours else f"bench.peers.{name}"
    say(f"finetune: {what} of {name}")
    timed(
        [python, "-m", module, "--plan", told, "--out", out, "--what", what], ROOT,
        **{STARTED: repr(time.time()), "BENCH_LAYERS": name, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found: Json = json.loads(out.read_text(encoding="utf-8"))
    return found


# ---------------------------------------------------------------- measurements


def seconds_to(accuracy: float, epochs: Sequence[Sequence[float]]) -> float | None:
    """When a log first says this accuracy; none if it never does."""
    return next((seconds for seconds, found in epochs if found >= accuracy), None)


def rates_of(raw: dict[str, list[Json]], which: str) -> dict[str, float]:
    """Medians; `which` is `pure` or `from_files`."""
    return {name: round(median(one[which] for one in runs), 2) for name, runs in raw.items()}


def finetune_text(results: Json) -> str:
    """All that stands between the markers `finetune` of the page."""
    machine = results["machine"]
    about = f"{report.machine_text(machine)} Load before the run: {machine['load_before']}."
    parts = [f"{about}\n{results['date']}; {_versions(results)}."]
    if results.get("rates"):
        parts.append(_rates_table(results))
    if results.get("courses"):
        parts += [_courses_table(results), _against_table(results)]
    return "\n\n".join(parts)


def _versions(results: Json) -> str:
    return ", ".join(f"{name} {number}" for name, number in results["versions"].items())


def _rates_table(results: Json) -> str:
    kinds = [rates_of(results["rates"], which) for which in ("from_files", "pure")]
    rows = [
        [title, *(cell for rates in kinds for cell in (f"{rates[name]:.1f}", _of_timms(rates, name)))]
        for name, title in {**PEERS, **OURS}.items()
        if name in results["rates"]
    ]
    what = f"a training step, {results['plan']['rate_size']} pixels, {BATCH} images"
    head = [what, "images/s, from files", "of timm's", "images/s, step alone", "of timm's"]
    return report.table(head, rows)


def _of_timms(rates: dict[str, float], name: str) -> str:
    return f"{rates[name] / rates['timm_train']:.1f} x" if "timm_train" in rates else ""


def _courses_table(results: Json) -> str:
    rows = []
    for name, title in {**PEERS, **OURS}.items():
        if name in results["courses"]:
            course = results["courses"][name]
            epochs = course["epochs"]
            best = max(found for _, found in epochs)
            passes = course["facts"].get("epochs", "")
            rows.append([title, passes, f"{epochs[-1][1]:.1%}", f"{best:.1%}", f"{epochs[-1][0] / 60:.1f}"])
    size = results["plan"]
    head = [
        f"{size['train']:,} images to learn from, {size['held']:,} held out, {size['size']} pixels",
        "epochs", "final accuracy", "best", "minutes in all",
    ]  # fmt: skip
    return report.table(head, rows)


def _against_table(results: Json) -> str:
    rows = []
    for peer, title in PEERS.items():
        if peer not in results["courses"]:
            continue
        end, final = results["courses"][peer]["epochs"][-1]
        row = [f"{title}: {final:.1%} after {end / 60:.1f} minutes"]
        for name in OURS:
            took = seconds_to(final, results["courses"][name]["epochs"]) if name in results["courses"] else None
            row.append("not reached" if took is None else f"{took / 60:.1f} ({end / took:.1f} x)")
        rows.append(row)
    return report.table(["minutes to a peer's final accuracy", "Graft, all layers", "Graft, last stage"], rows)


# ---------------------------------------------------------------- the run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--only", choices=["rate", "accuracy"])
    parser.add_argument("--size", type=int, default=112, help="pixels, for accuracy")
    parser.add_argument("--names", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    parser.add_argument("--repetitions", type=int, default=3, help="of the rates, by turns")
    parser.add_argument("--quick", action="store_true", help="few images and steps, one epoch, one repetition")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args()
    if options.publish and (options.quick or options.only or len(options.names) < len(PEERS) + len(OURS)):
        parser.error("only a full run is published: leave out --publish, or --quick, --only and --names")
    if any(name in PEERS for name in options.names) and not (TRAINERS / "bin" / "python").is_file():
        raise Failed(f"{TRAINERS.name} is not there; `make bench-finetune` makes it")
    folder = BUILD / "finetune"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    plan = _plan(options, folder)
    if len(plan.train) < BATCH:
        parser.error(f"{options.labelled} has {len(plan.train)} images to train on; a step takes {BATCH}")
    large = replace(plan, size=QUICK_SIZE if options.quick else RATE_SIZE)
    turns = 1 if options.quick else options.repetitions
    results: Json = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "plan": {"train": len(plan.train), "held": len(plan.held), "size": plan.size, "rate_size": large.size},
        "rates": {} if options.only == "accuracy" else _rates(options.names, turns, large, folder),
        "courses": {} if options.only == "rate" else {n: run(n, "accuracy", plan, folder) for n in options.names},
    }
    for one in [*results["courses"].values(), *(runs[0] for runs in results["rates"].values())]:
        results["versions"] |= {name: number for name, number in one["facts"].items() if name != "epochs"}
    results["minutes"] = round((time.perf_counter() - started) / 60, 1)
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("finetune", results, finetune_text(results), target))


def _plan(options: argparse.Namespace, folder: Path) -> Plan:
    if options.quick:
        return replace(plan_of(options.labelled, QUICK_SIZE, folder, QUICK), steps=1, epochs=1)
    return plan_of(options.labelled, options.size, folder)


def _rates(names: list[str], turns: int, plan: Plan, folder: Path) -> dict[str, list[Json]]:
    """All take part in every repetition; who begins moves on by one."""
    found: dict[str, list[Json]] = {name: [] for name in names}
    for turn in range(turns):
        begin = turn % len(names)
        for name in names[begin:] + names[:begin]:
            found[name].append(run(name, "rate", plan, folder))
    return found


if __name__ == "__main__":
    main()
