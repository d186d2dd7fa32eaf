"""Heads in ONNX, in single precision. B images, D features, K classes, k neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from ..common.core.errors import GraftError
from ..common.heads.base import Head
from ..common.heads.knn import NeighbourHead
from ..common.heads.linear import LinearHead
from ..common.heads.mean import MeanHead
from ..common.heads.mlp import MlpHead
from .builder import Builder


def single(value: Any) -> Any:
    """As a constant of float32."""
    return np.asarray(value, np.float32)


def logits_of(build: Builder, head: Head, features: str) -> str | None:
    """(B, K) before softmax or sigmoid, or numbers (B, 1); None for a head that has no logits."""
    if isinstance(head, LinearHead):
        return build.node("Gemm", features, head.weight, head.bias, transB=1)
    if isinstance(head, MlpHead):
        hidden = build.node("Relu", build.node("Gemm", features, head.hidden_weight, head.hidden_bias, transB=1))
        return build.node("Gemm", hidden, head.weight, head.bias, transB=1)
    return None


def output_of(build: Builder, head: Head, features: str) -> str:
    """Probabilities (B, K), or numbers (B, 1), before calibration.

    Raises:
        GraftError: the head is of a kind that is not known here.
    """
    logits = logits_of(build, head, features)
    if logits is not None:
        return linked(build, head, logits)
    if isinstance(head, MeanHead):
        return _mean(build, head, features)
    if isinstance(head, NeighbourHead):
        return _vote(build, head, features)
    raise GraftError("this head cannot be exported", got=head.kind, allowed="linear, mlp, knn or their mean")


def linked(build: Builder, head: Head, logits: str) -> str:
    if head.task == "classification":
        return build.node("Softmax", logits, axis=1)
    return build.node("Sigmoid", logits) if head.task == "multilabel" else logits


def _mean(build: Builder, head: MeanHead, features: str) -> str:
    outputs = []
    for part, columns in zip(head.parts, head.columns(), strict=True):
        ends = [build.integers(end) for end in (columns.start, columns.stop, 1)]
        outputs.append(output_of(build, part, build.node("Slice", features, *ends)))
    return build.node("Mean", *outputs)


def unit_rows(build: Builder, features: str) -> str:
    """(B, D) of length one."""
    length = build.node("ReduceL2", features, build.integers(1), keepdims=1)
    return build.node("Div", features, build.node("Max", length, single(1e-12)))


def _vote(build: Builder, head: NeighbourHead, features: str) -> str:
    """See `NeighbourHead.vote`."""
    known_DM = build.node("Cast", np.ascontiguousarray(head.unit.T), to=TensorProto.FLOAT)
    cosine = build.node("MatMul", unit_rows(build, features), known_DM)
    near, place = build.nodes("TopK", 2, cosine, build.integers(head.k), axis=1)
    nearest = build.node("ReduceMax", near, build.integers(1), keepdims=1)
    distance = build.node("Div", build.node("Sub", near, nearest), single(head.temperature))
    likeness = build.node("Exp", distance)
    votes = build.node("Mul", likeness, build.node("Gather", head.weight, place))
    total = build.node("ReduceSum", votes, build.integers(1), keepdims=1)
    chosen = _chosen(build, head, votes, place)
    if head.task == "regression":
        return build.node("Div", chosen, total)
    least = build.node("ReduceMin", likeness, build.integers(1), keepdims=1)
    further = build.node("Mul", least, single(head.weight.mean()))
    shared = build.node("Mul", further, single(head.share()).reshape(1, -1))
    return build.node("Div", build.node("Add", chosen, shared), build.node("Add", total, further))


def _chosen(build: Builder, head: NeighbourHead, votes: str, place: str) -> str:
    """The votes for each class, (B, K), or the sum of numbers times votes, (B, 1)."""
    target_MK = head.target
    if head.task == "classification":
        target_MK = np.eye(len(head.classes), dtype=np.uint8)[head.target]
    columns = target_MK.reshape(len(target_MK), -1)
    wanted = build.node("Cast", build.node("Gather", columns, place, axis=0), to=TensorProto.FLOAT)  # (B, k, K)
    row = build.node("Unsqueeze", votes, build.integers(1))
    return build.node("Squeeze", build.node("MatMul", row, wanted), build.integers(1))
