"""`graft models --measure`: how many images per second networks process on this machine."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from graft.tasks.common.backbones.spec import libraries
from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.files import json_digest, read_json, write_shared_json
from graft.tasks.common.core.progress import progress, say

from ..runtime.locations import Place

ROUNDS = 5
"""How often a network is measured; the median is kept."""

SECONDS = 1.0
"""The least duration of a round, so that starting the threads does not count."""


def machine() -> dict[str, Any]:
    """What a speed depends on, apart from other programs that run."""
    return {"processor": _processor(), "cores": cores(), **libraries()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measured(cache: Path) -> dict[str, dict[str, Any]]:
    """timm name -> `openvino` and `torch` in images per second, `precision` of the former, `when`; on this machine."""
    found: dict[str, dict[str, Any]] = _kept(cache).get(json_digest(machine()), {}).get("networks", {})
    return found


def _kept(cache: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = read_json(cache / "measured.json")
    except (FileNotFoundError, ValueError):  # none yet, or cut short by a crash
        return {}
    return kept


def measure(names: Sequence[str], place: Place) -> None:
    """Measures networks by their timm names and keeps the results; uses random weights where there are no others.

    Raises:
        ParamsError: timm knows no such network.
        WeightsError: a weights file is damaged.
    """
    with progress("measuring", len(names), "networks") as bar:
        for name in names:
            found = _measure(name, place)
            kept, key = _kept(place.cache), json_digest(machine())
            networks = {**kept.get(key, {}).get("networks", {}), name: found}
            write_shared_json(
                place.cache / "measured.json", {**kept, key: {"machine": machine(), "networks": networks}}
            )
            bar.add()
            say(
                f"{name}: {found['openvino']} images/s with OpenVINO ({found['precision']}), "
                f"{found['torch']} with torch (f32)"
            )


def _measure(name: str, place: Place) -> dict[str, Any]:
    from graft.tasks.common.backbones import network
    from graft.tasks.common.backbones.graph import convert, read_graph
    from graft.tasks.common.backbones.weights import at_hand, find_weights

    kind = "auto" if at_hand(name, place.weights) else "random"
    source = find_weights(name, kind, place.weights)
    model = network.create(name, source)
    with tempfile.TemporaryDirectory(prefix="graft-") as folder:
        convert(model, network.spec_of(model, name, source), Path(folder))
        openvino, precision = _openvino(read_graph(Path(folder)).xml)
    return {
        "openvino": round(openvino, 1),
        "precision": precision,
        "torch": round(_torch(model), 1),
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _openvino(xml: Path) -> tuple[float, str]:
    """(images per second, precision) of the engine on random pixels: the cost of the network, without decoding."""
    from graft.tasks.common.engines.openvino import BATCH, Engine, Precision, cpu_has_fast_bf16

    precision: Precision = "bf16" if cpu_has_fast_bf16() else "f32"
    engine = Engine(xml, precision)
    pixels = np.random.default_rng(0).integers(0, 256, (engine.height, engine.width, 3)).astype(np.uint8)

    def run(count: int) -> int:
        for _ in engine.stream(lambda _: pixels, count):
            pass
        return count

    return _median_rate(run, BATCH), precision


def _torch(model: Any) -> float:
    """Images per second of plain torch: eager, fp32, a batch at a time."""
    import torch

    from graft.tasks.common.backbones.network import eval_transform
    from graft.tasks.common.backbones.spec import Form
    from graft.tasks.common.engines.openvino import BATCH

    transform = eval_transform(model, Form(image_size="test"))
    batch = torch.rand(BATCH, 3, transform.height, transform.width)

    def run(count: int) -> int:
        batches = -(-count // BATCH)
        with torch.inference_mode():
            for _ in range(batches):
                model(batch)
        return batches * BATCH

    return _median_rate(run, BATCH)


def _median_rate(run: Callable[[int], int], least: int) -> float:
    """Images per second: the median of `ROUNDS`, each with as many images as fill `SECONDS`.

    Args:
        run: takes a number of images, processes at least so many, and returns how many.
        least: the number of images for warming up.
    """
    run(least)  # memory is allocated, kernels are chosen
    count, rates = least, list[float]()
    while len(rates) < ROUNDS:
        start = time.perf_counter()
        done = run(count)
        seconds = time.perf_counter() - start
        if seconds < SECONDS and not rates:
            count = max(2 * count, int(1.1 * done * SECONDS / seconds))
            continue
        rates.append(done / seconds)
    return statistics.median(rates)
