"""The README beside an exported file: what it is, and code that runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2

from ..common.heads.decoder import DecoderHead
from ..register.serving import ANOMALY
from .onnx_file import Parts
from .openvino_file import preparations
from .proof import Proof

TEMPLATES = Path(__file__).parent / "templates"

MODES = {1: "L", 3: "RGB"}
"""Channels -> Pillow's mode; other numbers come from arrays."""


def read_me(file: str, parts: Parts, facts: dict[str, str], proof: Proof, notes: list[str]) -> str:
    """Markdown.

    Args:
        file: its name.
        facts: its metadata.
        notes: further sentences about its making.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )  # Markdown, so without HTML's escapes
    kind = "openvino" if file.endswith(".xml") else "onnx"
    return environment.get_template(f"{kind}.md").render(
        file=file,
        facts=facts,
        classes=facts["classes"],
        names=json.loads(facts["classes"]),
        task=facts["task"],
        transform=parts.transforms[0],
        mode=MODES.get(parts.transforms[0].channels),
        proof=proof,
        notes=notes,
        outputs=_outputs(parts),
        preparations=preparations(parts),
    )


def _outputs(parts: Parts) -> list[tuple[str, str, str]]:
    """(name, type and shape, meaning) of each output for one picture."""
    calibration, count = parts.calibration, len(parts.head.classes)
    shape = parts.head.plan.image if isinstance(parts.head, DecoderHead) else ()
    rows: dict[str, list[tuple[str, str, str]]] = {
        "classification": [
            ("probabilities", f"float32 ({count},)", "calibrated, in the order of the classes"),
            ("label", "int64", "the class that the model chooses, by its place; usually the most probable one"),
            ("score", "float32", "the probability of that class"),
        ],
        "multilabel": [
            ("probabilities", f"float32 ({count},)", "calibrated, in the order of the classes"),
            ("labels", f"bool ({count},)", "which classes reach their threshold"),
        ],
        "regression": [("value", "float32", "the number")],
        "reconstruction": [
            ("image", f"float32 {shape}", "what is decoded: (channels, height, width), from 0 to 1"),
            ("value", "float32", "the mean of its pixels; of a mask the share that is marked"),
        ],
        "anomaly": [
            ("score", "float32", "the higher, the less like the good pictures"),
            ("p_value", "float32", "the share of good pictures with such a score or a higher one"),
            ("anomalous", "bool", f"whether the score is above the threshold, {calibration.threshold or 0:.6g}"),
            ("map", "float32 (height, width)", "the score of each part of the picture, in rows from the top"),
        ],
    }
    if parts.head.task == ANOMALY:
        return rows[ANOMALY]
    further: list[tuple[Any, tuple[str, str, str]]] = [
        (calibration.threshold, ("abstain", "bool", "the score is too low: do not use the label as an answer")),
        (calibration.set_least, ("set", f"bool ({count},)", "which classes are in the prediction set")),
        (calibration.margin, ("low", "float32", "the lower end of the interval")),
        (calibration.margin, ("high", "float32", "the upper end of the interval")),
        (parts.known, ("typicality", "float32", "close to 0 for a picture unlike any that the model has learned from")),
    ]
    return [*rows[parts.head.task], *(row for has, row in further if has is not None)]
