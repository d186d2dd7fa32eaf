"""A backbone's OpenVINO graph in ONNX, operation by operation.

The package has this graph and no other form of the network. So nothing else is needed: neither torch nor the weights'
file, nor the project that trained it, whose fine-tuned weights may have changed since.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import passes

from ..common.core.errors import GraftError
from .builder import Builder
from .operations import TRANSLATIONS, Operation, known


def features_of(build: Builder, graph: Path, pixels: str) -> str:
    """float32 (1, D), from pixels of uint8 (1, H, W, C).

    Args:
        graph: the .xml file.

    Raises:
        GraftError: the graph has an operation that is not known here.
    """
    model = _of_one_picture(graph)
    _check(model)
    values: dict[tuple[str, int], str] = {}
    for operation in model.get_ordered_ops():
        kind, name = operation.get_type_name(), operation.get_name()
        inputs = [_source(values, operation, place) for place in range(operation.get_input_size())]
        if kind == "Result":
            return inputs[0]
        for place, value in enumerate(_values(build, operation, inputs, pixels)):
            values[name, place] = value
    raise AssertionError("a graph without a result")


def _of_one_picture(graph: Path) -> Any:
    """The graph with a batch of one, so that all shapes are known and what computes shapes is a constant."""
    model = ov.Core().read_model(graph)
    shape = model.input(0).partial_shape
    shape[0] = 1
    model.reshape(shape)
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    return model


_FURTHER = frozenset({"Constant", "Parameter", "Result", "Split", "VariadicSplit"})


def _check(model: Any) -> None:
    unknown = sorted({each.get_type_name() for each in model.get_ops()} - TRANSLATIONS.keys() - _FURTHER)
    if unknown:
        raise GraftError(
            "this network cannot be exported to ONNX",
            got=f"OpenVINO's {', '.join(unknown)}",
            todo="export with --to openvino, or use another backbone",
        )


def _source(values: dict[tuple[str, int], str], operation: Operation, place: int) -> str:
    output = operation.input_value(place)
    return values[output.get_node().get_name(), output.get_index()]


def _values(build: Builder, operation: Operation, inputs: list[str], pixels: str) -> list[str]:
    """Of all its outputs that may be used."""
    kind = operation.get_type_name()
    if kind == "Parameter":
        return [pixels]
    if kind == "Constant":
        return [build.constant(operation.data)]
    if kind in ("Split", "VariadicSplit"):
        return _split(build, operation, inputs)
    return [TRANSLATIONS[kind](build, operation, inputs)]


def _split(build: Builder, operation: Operation, inputs: list[str]) -> list[str]:
    axis = int(np.asarray(known(operation, 1)).item())
    lengths = [int(each.get_shape()[axis]) for each in operation.outputs()]
    return build.nodes("Split", len(lengths), inputs[0], build.integers(*lengths), axis=axis)
