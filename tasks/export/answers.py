"""Calibration and decisions in ONNX: from the output of a head to what a caller gets. B images, K classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from ..common.heads.anomaly import AnomalyHead
from ..common.heads.base import Head
from ..common.heads.calibration import Calibration
from ..common.heads.decoder import DecoderHead
from ..common.heads.typicality import Typicality
from .anomalies import image_score, patch_scores
from .builder import Builder
from .decoder import decoded, levels_of, mean_of, means_of
from .heads import logits_of, output_of, single, unit_rows

IMAGE = "image"
"""The output of a decoder; the proof of an export compares its mean."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""Probabilities below are taken for it: the package computes in double precision."""


@dataclass(frozen=True)
class Answer:
    """An output of the file: its value, its type, and its shape for one image."""

    name: str
    value: str
    kind: int
    shape: tuple[int, ...] = ()


def answers_of(
    build: Builder, head: Head, calibration: Calibration, known: Typicality | None, features: str
) -> list[Answer]:
    """All outputs, their first axis the images; see `ImageClassifier.predict`."""
    if isinstance(head, AnomalyHead):
        return _anomaly(build, head, calibration, features)
    if isinstance(head, DecoderHead):
        return _image(build, head, known, features)
    found = _numbers if head.task == "regression" else _several if head.task == "multilabel" else _one_class
    answers = found(build, head, calibration, features)
    if known is not None:
        answers.append(Answer("typicality", _typicality(build, known, features), TensorProto.FLOAT))
    return answers


def _image(build: Builder, head: DecoderHead, known: Typicality | None, maps: str) -> list[Answer]:
    levels = levels_of(build, head, maps)
    image = decoded(build, head, levels)
    answers = [
        Answer(IMAGE, image, TensorProto.FLOAT, head.plan.image),
        Answer("value", mean_of(build, head, image), TensorProto.FLOAT),
    ]
    if known is not None:
        answers.append(Answer("typicality", _typicality(build, known, means_of(build, levels)), TensorProto.FLOAT))
    return answers


def _numbers(build: Builder, head: Head, calibration: Calibration, features: str) -> list[Answer]:
    value = build.node("Squeeze", output_of(build, head, features), build.integers(1))
    answers = [Answer("value", value, TensorProto.FLOAT)]
    if calibration.margin is not None:
        for name, operation in (("low", "Sub"), ("high", "Add")):
            end = build.node(operation, value, single(calibration.margin))
            answers.append(Answer(name, end, TensorProto.FLOAT))
    return answers


def _several(build: Builder, head: Head, calibration: Calibration, features: str) -> list[Answer]:
    p, classes = _calibrated(build, head, calibration, features), len(head.classes)
    found = build.node("GreaterOrEqual", _weighed(build, calibration, p), single(0.5))
    return [
        Answer("probabilities", p, TensorProto.FLOAT, (classes,)),
        Answer("labels", found, TensorProto.BOOL, (classes,)),
    ]


def _one_class(build: Builder, head: Head, calibration: Calibration, features: str) -> list[Answer]:
    p = _calibrated(build, head, calibration, features)
    weighed = _weighed(build, calibration, p)
    label = build.node("ArgMax", weighed, axis=1, keepdims=1)
    flat = build.integers(1)
    score = build.node("Squeeze", build.node("GatherElements", p, label, axis=1), flat)
    answers = [
        Answer("probabilities", p, TensorProto.FLOAT, (len(head.classes),)),
        Answer("label", build.node("Squeeze", label, flat), TensorProto.INT64),
        Answer("score", score, TensorProto.FLOAT),
    ]
    if calibration.threshold is not None:
        abstain = build.node("LessOrEqual", score, single(calibration.threshold))
        answers.append(Answer("abstain", abstain, TensorProto.BOOL))
    if calibration.set_least is not None:
        most = build.node("ReduceMax", weighed, build.integers(1), keepdims=1)
        inside = build.node("GreaterOrEqual", weighed, build.node("Min", most, single(calibration.set_least)))
        answers.append(Answer("set", inside, TensorProto.BOOL, (len(head.classes),)))
    return answers


def _anomaly(build: Builder, head: AnomalyHead, calibration: Calibration, features: str) -> list[Answer]:
    """`map` has the score of each patch, before it is enlarged and smoothed."""
    flat = patch_scores(build, head, features)
    score = image_score(build, head, flat)
    by_image = build.node("Unsqueeze", score, build.integers(1))
    higher = build.node("Cast", build.node("LessOrEqual", by_image, single(head.good)), to=TensorProto.FLOAT)
    total = 1 + float(head.share.sum())
    share = build.node("Squeeze", build.node("MatMul", higher, single(head.share / total)[:, None]), build.integers(1))
    p = build.node("Min", build.node("Add", share, single(1 / total)), single(1))
    threshold = math.inf if calibration.threshold is None else calibration.threshold
    shape = (head.height, head.width)
    return [
        Answer("score", score, TensorProto.FLOAT),
        Answer("p_value", p, TensorProto.FLOAT),
        Answer("anomalous", build.node("Greater", score, single(threshold)), TensorProto.BOOL),
        Answer("map", build.node("Reshape", flat, build.integers(-1, *shape)), TensorProto.FLOAT, shape),
    ]


def _calibrated(build: Builder, head: Head, calibration: Calibration, features: str) -> str:
    """`Calibration.apply`. Of a head with logits from these: softmax(log p / T) is softmax(logits / T)."""
    logits = logits_of(build, head, features)
    if calibration.each:
        return _each_calibrated(build, head, calibration, features, logits)
    if logits is None:
        p = output_of(build, head, features)
        if calibration.temperature == 1.0 and calibration.bias is None:
            return p
        logits = build.node("Log", build.node("Max", p, single(max(calibration.zero, SMALLEST))))
    scaled = build.node("Div", logits, single(calibration.temperature))
    if calibration.bias is not None:
        scaled = build.node("Add", scaled, single(calibration.bias))
    return build.node("Softmax", scaled, axis=1) if head.task == "classification" else build.node("Sigmoid", scaled)


def _each_calibrated(build: Builder, head: Head, calibration: Calibration, features: str, logits: str | None) -> str:
    """Every class with its own temperature: sigmoid(logit(p) / T)."""
    if logits is None:
        p = output_of(build, head, features)
        least = single(max(calibration.zero, SMALLEST))
        sides = (p, build.node("Sub", single(1), p))
        yes, no = (build.node("Log", build.node("Max", side, least)) for side in sides)
        logits = build.node("Sub", yes, no)
    temperature = calibration.temperature if calibration.temperatures is None else calibration.temperatures
    return build.node("Sigmoid", build.node("Div", logits, single(temperature)))


def _weighed(build: Builder, calibration: Calibration, p: str) -> str:
    """`Calibration.weighed`."""
    if calibration.decision_weights is not None:
        cost = build.node("Mul", p, single(calibration.decision_weights))
        return build.node("Div", cost, build.node("ReduceSum", cost, build.integers(1), keepdims=1))
    if calibration.thresholds is not None:
        threshold_K = single(calibration.thresholds)
        yes = build.node("Mul", p, 1 - threshold_K)
        no = build.node("Mul", build.node("Sub", single(1), p), threshold_K)
        return build.node("Div", yes, build.node("Add", yes, no))
    return p


def _typicality(build: Builder, known: Typicality, features: str) -> str:
    """`Typicality.p_values`: the share of groups that are as far from the others as the image, or farther."""
    cosine = build.node("MatMul", unit_rows(build, features), np.ascontiguousarray(known.unit_nD.T))
    distance = build.node("Sub", single(1), cosine)
    nearest, _ = build.nodes("TopK", 2, distance, build.integers(known._k), axis=1, largest=0)
    own = build.node("ReduceMax", nearest, build.integers(1), keepdims=1)
    nearer_n, farther_n = (np.clip(each, -1e30, 1e30) for each in known._neighbours)
    with_new = build.node("Min", build.node("Max", distance, single(nearer_n)), single(farther_n))
    farther = build.node("Cast", build.node("GreaterOrEqual", with_new, own), to=TensorProto.FLOAT)
    weight_n = 1 / np.bincount(known.group_n)[known.group_n]
    groups = int(known.group_n.max()) + 1
    share = build.node("MatMul", farther, single(weight_n / (groups + 1))[:, None])
    p = build.node("Add", build.node("Squeeze", share, build.integers(1)), single(1 / (groups + 1)))
    return build.node("Min", p, single(1))
