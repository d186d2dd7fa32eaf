"""Answers as rows: the columns of the files that `graft predict` writes, and their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from graft.tasks.common.data.task import BETWEEN, GOOD
from graft.tasks.register.serving import ImageClassifier

from .predict import Answer

TEXT, NUMBER, TRUTH = pa.string(), pa.float64(), pa.bool_()

_NOTES = {"abstain": TRUTH, "set": TEXT, "typicality": NUMBER, "low": NUMBER, "high": NUMBER}
"""What a model may also say of an image."""


class Columns:
    """The columns by name, and the row of an answer.

    Args:
        top: how many labels.
        probabilities: whether each class has a column with its probability.
    """

    def __init__(self, classifier: ImageClassifier, top: int = 1, probabilities: bool = False) -> None:
        self._task = classifier.task
        self._top = min(top, len(classifier.classes)) if classifier.task == "classification" else 1
        self._classes = list(classifier.classes) if probabilities else []
        ranked = {
            f"{name}_{place}": kind for place in range(2, self._top + 1) for name, kind in _BEST[self._task].items()
        }
        notes = {name: kind for name, kind in _NOTES.items() if name in classifier.columns}
        each = {f"p_{name}": NUMBER for name in self._classes}
        self.types = {"path": TEXT, **_BEST[self._task], **notes, **ranked, **each, "error": TEXT}

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self.types.items()))

    def row(self, answer: Answer) -> dict[str, Any]:
        """Without a value where there is none."""
        row: dict[str, Any] = dict.fromkeys(self.types)
        row |= {"path": answer.source.name, "error": answer.error or None}
        if answer.found:
            row |= {name: _flat(value) for name, value in answer.found.items() if name in row}
            row |= self._best(answer.found)
            row |= {f"p_{name}": answer.found["probabilities"][name] for name in self._classes}
        return row

    def _best(self, found: dict[str, Any]) -> dict[str, Any]:
        if self._task == "multilabel":
            return {"label": BETWEEN.join(found["labels"]), "score": max(found["probabilities"].values())}
        if self._task != "classification":
            return {}
        further = enumerate(ranked(found, self._top)[1:], 2)
        return {
            key: value
            for place, (label, score) in further
            for key, value in ((f"label_{place}", label), (f"score_{place}", score))
        }


_BEST = {
    "classification": {"label": TEXT, "score": NUMBER},
    "multilabel": {"label": TEXT, "score": NUMBER},
    "regression": {"value": NUMBER},
    "reconstruction": {"value": NUMBER},
    "anomaly": {"score": NUMBER, "p_value": NUMBER, "anomalous": TRUTH},
}
"""The first columns, by task. With several labels they are joined, and the score is the highest probability."""


def _flat(value: Any) -> Any:
    return BETWEEN.join(value) if isinstance(value, list) else value


def ranked(found: dict[str, Any], top: int) -> list[tuple[str, float]]:
    """Labels with their probabilities: first that of the answer, which a bias may have chosen, then the most probable
    others."""
    first = found["label"]
    others = sorted(found["probabilities"].items(), key=lambda pair: -pair[1])
    best = [(first, found["probabilities"][first]), *(pair for pair in others if pair[0] != first)]
    return best[:top]


def document(answer: Answer, top: int | None) -> dict[str, Any]:
    """For JSON lines: as the model says it, with the probabilities of all classes or of the `top` most probable."""
    if answer.error:
        return {"path": answer.source.name, "error": answer.error}
    found = dict(answer.found)
    if "label" in found and top and top < len(found["probabilities"]):
        found["probabilities"] = dict(ranked(found, top))
    return {"path": answer.source.name, **found}


def lines(answer: Answer, top: int, width: int) -> Iterator[str]:
    """For a terminal."""
    name = answer.source.name.ljust(width)
    found = answer.found
    notes = ["not sure"] * bool(found.get("abstain")) + ["unlike anything learned"] * unlike(found)
    if "value" in found:
        span = f"{found['low']:.4g} to {found['high']:.4g}" if "low" in found else ""
        yield "  ".join([name, f"{found['value']:.4g}", *filter(None, [span]), *notes])
    elif "anomalous" in found:
        yield "  ".join([name, verdict(found).ljust(9), f"score {found['score']:.4g}", f"p {found['p_value']:.2g}"])
    elif "labels" in found:
        said = ", ".join(f"{label} {found['probabilities'][label]:.1%}" for label in found["labels"]) or "(none)"
        yield "  ".join([name, said, *notes])
    else:
        best = ranked(found, top)
        yield "  ".join([name, f"{best[0][1]:6.1%}", best[0][0], *(f"({note})" for note in notes)])
        yield from (f"{'':{width}}  {score:6.1%}  {label}" for label, score in best[1:])


def verdict(found: dict[str, Any]) -> str:
    """Of an answer of the task anomaly, in one word."""
    return "anomalous" if found["anomalous"] else GOOD


UNLIKE = 0.05
"""Images of the kind that a model learned from have a lower typicality in 5 % of the cases."""


def unlike(found: dict[str, Any]) -> bool:
    """Whether an image is unlike those that the model learned from."""
    return "typicality" in found and found["typicality"] < UNLIKE
