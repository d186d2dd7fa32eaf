"""Loading of a saved head of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from safetensors.numpy import load_file

from ..core.errors import DataError
from ..core.files import read_json
from .base import Head
from .knn import NeighbourHead
from .linear import LinearHead
from .mlp import MlpHead

_KINDS: dict[str, Any] = {kind.kind: kind for kind in (LinearHead, MlpHead, NeighbourHead)}


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
    kind = _KINDS[facts["kind"]]
    settings = {key: facts[key] for key in _SETTINGS if kind is NeighbourHead}
    tensors = load_file(folder / f"{name}.safetensors")
    return cast(Head, kind(**tensors, **settings, classes=facts["classes"], task=facts["task"]))


def load_linear_head(folder: Path, name: str = "head") -> LinearHead:
    """A saved head that must be linear.

    Raises:
        DataError: it is of another kind.
    """
    head = load_head(folder, name)
    if not isinstance(head, LinearHead):
        raise DataError(f"{folder / name}.json is a head of another kind", got=head.kind, allowed=LinearHead.kind)
    return head
