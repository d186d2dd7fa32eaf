"""How two packages of a model differ: not at all, or by how much in which numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.tasks.common.core.files import sha256

Arrays = Mapping[str, npt.NDArray[Any]]


def compare(then: Path, now: Path) -> dict[str, dict[str, Any]]:
    """File of the package -> `identical`; if it is not, the largest `difference` and `in` which tensor, or a `note`
    why there is no difference to compute."""
    return {name: _file(then / name, now / name, read) for name, read in _READ.items()}


def _file(then: Path, now: Path, read: Callable[[Path], Arrays]) -> dict[str, Any]:
    there = [file.is_file() for file in (then, now)]
    if not all(there):
        return {"identical": not any(there), "note": "in neither package" if not any(there) else "in one package only"}
    if sha256(then) == sha256(now):
        return {"identical": True}
    return {"identical": False, **_difference(read(then), read(now))}


def _difference(then: Arrays, now: Arrays) -> dict[str, Any]:
    shapes = [{name: array.shape for name, array in of.items()} for of in (then, now)]
    if shapes[0] != shapes[1]:
        return {"note": "tensors of other names or shapes"}
    apart = {name: _largest(then[name], now[name]) for name in then}
    worst = max(apart, key=lambda name: apart[name], default="")
    return {"difference": apart.get(worst, 0.0), "in": worst}


def _largest(then: npt.NDArray[Any], now: npt.NDArray[Any]) -> float:
    if then.size == 0:
        return 0.0
    return float(np.max(np.abs(np.asarray(then, np.float64) - np.asarray(now, np.float64))))


def _constants(weights: Path) -> Arrays:
    """The constants of a graph, by their position."""
    import openvino

    model = openvino.Core().read_model(weights.with_suffix(".xml"))
    held = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    return {f"{place}": node.get_data() for place, node in enumerate(held)}


def _tensors(file: Path) -> Arrays:
    from safetensors.numpy import load_file

    return dict(load_file(file))


def _numbers(file: Path) -> Arrays:
    """The numbers of a JSON file; other values are compared as part of the name."""
    from ..tracking.names import flatten

    flat = flatten(json.loads(file.read_text(encoding="utf-8")))
    numbers = {key: value for key, value in flat.items() if isinstance(value, int | float)}
    others = {f"{key}: {value}": 0 for key, value in flat.items() if key not in numbers}
    return {key: np.asarray(value, np.float64) for key, value in {**numbers, **others}.items()}


_READ: dict[str, Callable[[Path], Arrays]] = {
    "graph.bin": _constants,
    "head.safetensors": _tensors,
    "calibration.json": _numbers,
}
