"""Fine-tuning: Graft beside timm's training loop, Hugging Face's Trainer and fastai's `fine_tune`, in one run.

    python -m bench.finetune --labelled FOLDER --publish      FOLDER has a folder of photographs a class
    python -m bench.finetune --labelled FOLDER --only rate    images per second of a training step, nothing else

`make bench-finetune LABELLED=FOLDER` makes the trainers' environment first. Each contestant is a process of its own;
all begin with the same weights, learn from the same images, and are judged after each epoch on the same ones held out.
A contestant's clock starts with its process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from . import report
from .peers.course import Plan
from .peers.figures import STARTED
from .processes import BUILD, ROOT, Failed, machine, say, timed, versions

Json = dict[str, Any]

TRAINERS = ROOT / ".venv-bench-trainers"
"""The environment of bench/requirements-trainers.txt."""

BACKBONE = "tf_efficientnet_lite0"

RATE_SIZE = 224
"""Pixels, for images per second of a step."""

HELD = 0.25
"""Share of the images on which all are judged."""

PEERS = {
    "timm_train": "timm's train.py, eager fp32",
    "huggingface_trainer": "Hugging Face's Trainer",
    "fastai_tune": "fastai's `fine_tune`",
}
OURS = {
    "all": "**Graft, all layers**",
    "last_stage": "**Graft, last stage on cached maps**",
}


def plan_of(labelled: Path, size: int, folder: Path) -> Plan:
    """A random split with seed 0; one image a class is nobody's but the test's, which Graft's stages need."""
    classes = sorted(place.name for place in labelled.iterdir() if place.is_dir())
    listed = [
        (str(file.resolve()), code)
        for code, name in enumerate(classes)
        for file in sorted((labelled / name).iterdir())
        if file.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    order = np.random.default_rng(0).permutation(len(listed))
    mixed = [listed[place] for place in order]
    test = [next(one for one in mixed if one[1] == code) for code in range(len(classes))]
    rest = [one for one in mixed if one not in test]
    held = round(HELD * len(rest))
    return Plan(BACKBONE, str(weights(folder)), size, classes, rest[held:], rest[:held], test)


def weights(folder: Path) -> Path:
    """The network's, without its classifier, by timm's names."""
    from safetensors.torch import save_file

    from tasks.common.backbones import network
    from tasks.common.backbones.weights import find_weights

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


# ---------------------------------------------------------------- figures


def seconds_to(accuracy: float, epochs: Sequence[Sequence[float]]) -> float | None:
    """When a log first says this accuracy; none if it never does."""
    return next((seconds for seconds, found in epochs if found >= accuracy), None)


def rates_of(raw: dict[str, list[Json]]) -> dict[str, float]:
    return {name: round(median(one["images_per_second"] for one in runs), 2) for name, runs in raw.items()}


def finetune_text(results: Json) -> str:
    """All that stands between the markers `finetune` of the page."""
    parts = [f"{report.machine_text(results['machine'])}\n{results['date']}; {_versions(results)}."]
    if results.get("rates"):
        parts.append(_rates_table(results))
    if results.get("courses"):
        parts += [_courses_table(results), _against_table(results)]
    return "\n\n".join(parts)


def _versions(results: Json) -> str:
    return ", ".join(f"{name} {number}" for name, number in results["versions"].items())


def _rates_table(results: Json) -> str:
    rates = rates_of(results["rates"])
    eager = rates["timm_train"]
    rows = [
        [title, f"{rates[name]:.1f}", f"{rates[name] / eager:.1f} x"]
        for name, title in {**PEERS, **OURS}.items()
        if name in rates
    ]
    return report.table([f"a training step, {RATE_SIZE} pixels, 32 images", "images/s", "of timm's"], rows)


def _courses_table(results: Json) -> str:
    rows = []
    for name, title in {**PEERS, **OURS}.items():
        if name in results["courses"]:
            epochs = results["courses"][name]["epochs"]
            best = max(found for _, found in epochs)
            rows.append([title, f"{epochs[-1][1]:.1%}", f"{best:.1%}", f"{epochs[-1][0] / 60:.1f}"])
    size = results["plan"]
    head = [
        f"{size['train']:,} images to learn from, {size['held']:,} held out, {size['size']} pixels",
        "final accuracy", "best", "minutes in all",
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
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    if any(name in PEERS for name in options.names) and not (TRAINERS / "bin" / "python").is_file():
        raise Failed(f"{TRAINERS.name} is not there; `make bench-finetune` makes it")
    folder = BUILD / "finetune"
    folder.mkdir(parents=True, exist_ok=True)
    plan = plan_of(options.labelled, options.size, folder)
    results: Json = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "plan": {"train": len(plan.train), "held": len(plan.held), "size": plan.size},
        "rates": {} if options.only == "accuracy" else _rates(options, plan, folder),
        "courses": {} if options.only == "rate" else {n: run(n, "accuracy", plan, folder) for n in options.names},
    }
    for one in [*results["courses"].values(), *(runs[0] for runs in results["rates"].values())]:
        results["versions"] |= {name: number for name, number in one["facts"].items() if name != "epochs"}
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_text("finetune", results, finetune_text(results), target))


def _rates(options: argparse.Namespace, plan: Plan, folder: Path) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {name: [] for name in options.names}
    large = Plan(**{**asdict(plan), "size": RATE_SIZE})
    for _ in range(options.repetitions):
        for name in options.names:
            found[name].append(run(name, "rate", large, folder))
    return found


if __name__ == "__main__":
    main()
