"""Loading of a saved head of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from safetensors.numpy import load_file

from ..core.errors import DataError
from ..core.files import read_json
from .anomaly import AnomalyHead
from .base import Array, Head
from .decoder import DecoderHead
from .gaussian import GaussianHead
from .knn import NeighbourHead
from .linear import LinearHead
from .mean import MeanHead, tensors_of_part
from .mlp import MlpHead
from .patches import PatchesHead
from .subspace import SubspaceHead

_KINDS: dict[str, Any] = {
    kind.kind: kind
    for kind in (
        DecoderHead,
        GaussianHead,
        LinearHead,
        MeanHead,
        MlpHead,
        NeighbourHead,
        PatchesHead,
        SubspaceHead,
    )
}


_SETTINGS = ("k", "temperature")


def load_head(folder: Path, name: str = "head") -> Head:
    """The head that was saved in `folder` under `name`.

    Raises:
        DataError: this version does not know its kind.
    """
    facts = read_json(folder / f"{name}.json")
    if facts.get("kind") not in _KINDS:
        raise DataError(
            f"{folder / name}.json is not a head that this version knows",
            got=f"kind {facts.get('kind')!r}",
            allowed=", ".join(_KINDS),
            todo="run `dvc repro head`, which trains it again",
        )
    return _head_of(facts, load_file(folder / f"{name}.safetensors"))


def _head_of(facts: dict[str, Any], tensors: dict[str, Array]) -> Head:
    kind, common = _KINDS[facts["kind"]], {"classes": facts["classes"], "task": facts["task"]}
    if kind is DecoderHead:
        return DecoderHead.of(facts, tensors)
    if kind is MeanHead:
        parts = [
            _head_of({**common, **part}, tensors_of_part(tensors, number)) for number, part in enumerate(facts["parts"])
        ]
        return MeanHead(tuple(parts), **common)
    named = AnomalyHead.sizes if issubclass(kind, AnomalyHead) else _SETTINGS if kind is NeighbourHead else ()
    settings = {key: facts[key] for key in named}
    return cast(Head, kind(**tensors, **settings, **common))


def load_linear_head(folder: Path, name: str = "head") -> LinearHead:
    """A saved head that must be linear.

    Raises:
        DataError: it is of another kind.
    """
    head = load_head(folder, name)
    if not isinstance(head, LinearHead):
        raise DataError(f"{folder / name}.json is a head of another kind", got=head.kind, allowed=LinearHead.kind)
    return head


def load_anomaly_head(folder: Path, name: str = "head") -> AnomalyHead:
    """A saved head that must be one for anomalies.

    Raises:
        DataError: it is of another kind.
    """
    head = load_head(folder, name)
    if not isinstance(head, AnomalyHead):
        raise DataError(
            f"{folder / name}.json is a head of another task",
            got=head.task,
            allowed="anomaly",
            todo="run `graft repro`",
        )
    return head
