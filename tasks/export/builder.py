"""An ONNX graph, built node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from ..common.core.errors import GraftError

OPSET, IR_VERSION = 18, 10
"""The first opset with antialiased `Resize`, and a file version that ONNX Runtime reads from 1.18 on."""

LARGEST = (1 << 31) - (1 << 20)
"""Bytes that one ONNX file can hold: protobuf's limit, less a megabyte for the nodes."""

Array = npt.NDArray[Any]


class Builder:
    """Values are known by their names; an array as an input becomes a constant."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[TensorProto] = []
        self._bytes = 0
        self._names: dict[str, str] = {}

    def constant(self, value: Array) -> str:
        name = f"c{len(self._constants)}"
        self._bytes += value.nbytes
        if self._bytes > LARGEST:
            raise GraftError(
                "the model is too large for one ONNX file",
                got=f"more than {self._bytes / 1e9:.1f} GB of weights",
                allowed="2 GB",
                todo="export with --to openvino, or use a smaller backbone",
            )
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def integers(self, *values: int) -> str:
        """A constant of int64, shape (n,)."""
        return self.constant(np.array(values, np.int64))

    def node(self, operation: str, *inputs: str | Array, **attributes: Any) -> str:
        """The value of an operation with one output."""
        return self.nodes(operation, 1, *inputs, **attributes)[0]

    def nodes(self, operation: str, outputs: int, *inputs: str | Array, **attributes: Any) -> list[str]:
        """The values of an operation with several outputs."""
        sources = [self.constant(each) if isinstance(each, np.ndarray) else each for each in inputs]
        names = [f"v{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(operation, sources, names, **attributes))
        return names

    def name(self, value: str, name: str) -> None:
        """Gives the value of a node the name that it has in the file. A node `Identity` would do the same, but OpenVINO
        removes it and then knows the value by both names."""
        self._names[value] = name

    def model(self, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], facts: dict[str, str]) -> ModelProto:
        """The checked model, with `facts` as its metadata."""
        for field in (names for node in self._nodes for names in (node.input, node.output)):
            field[:] = [self._names.get(each, each) for each in field]
        used = {name for node in self._nodes for name in node.input}
        constants = [each for each in self._constants if each.name in used]
        graph = helper.make_graph(self._nodes, "graft", inputs, outputs, constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="graft")
        helper.set_model_props(model, facts)
        checker.check_model(model)
        return model
