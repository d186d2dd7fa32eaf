"""Why a stage would run, or ran: two states of its dependencies compared, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from graft.tasks.common.core.paths import STAGES

from .image_diff import ImageChanges

Kind = Literal["images", "labels", "pins", "weights", "params", "code", "never_run", "output"]

NAMED = 3
"""How many keys or files a sentence names."""

BACKBONE = ("backbone", "weights", "weights_sha256", "output", "image_size", "crop")
"""Parameters of `features` that change the backbone, what it sees, or which of its outputs are used."""


@dataclass(frozen=True)
class Reason:
    """One kind of change.

    Attributes:
        names: the parameters, or the files.
    """

    kind: Kind
    words: str
    names: tuple[str, ...] = ()


def reasons_of(
    before: Mapping[str, str],
    now: Mapping[str, str],
    images: Callable[[str, str], ImageChanges],
    keys: Iterable[str],
) -> tuple[Reason, ...]:
    """The differences between two states.

    Args:
        before: dependency -> hash.
        now: the same; empty for a missing one.
        images: gives the difference between two hashes of data/raw.
        keys: the parameters that differ.
    """
    differing = [path for path in dict.fromkeys([*now, *before]) if before.get(path, "") != now.get(path, "")]
    found = [_of_file(path, path in now and not now[path]) for path in differing if not _is_code(path)]
    if "data/raw" in differing:
        changes = images(before.get("data/raw", ""), now.get("data/raw", ""))
        found = [Reason("images", changes.words()), *(reason for reason in found if reason.names != ("data/raw",))]
    code = [path.removesuffix(".py") for path in differing if _is_code(path)]
    return (*found, *_of_names("code", code), *_of_names("params", keys))


def _is_code(path: str) -> bool:
    return path.startswith(("tasks/", "flows/")) or path == "dvc.yaml"


def _of_file(path: str, gone: bool) -> Reason:
    """A dependency that changed and is neither code nor images."""
    known: dict[str, Kind] = {"data/labels.csv": "labels", "data/pins.csv": "pins", "data/weights": "weights"}
    return Reason(known.get(path, "output"), f"{path} {'is missing' if gone else 'changed'}", (path,))


def _of_names(kind: Kind, names: Iterable[str]) -> list[Reason]:
    each = tuple(names)
    what = "code of" if kind == "code" else "params"
    return [Reason(kind, f"{what} {some(each)} changed", each)] if each else []


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ; like DVC, null differs from a missing key."""
    return [key for name in dict.fromkeys([*now, *before]) for key in _differing(name, before, now)]


_ABSENT = object()


def _differing(name: str, before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    old, new = before.get(name, _ABSENT), now.get(name, _ABSENT)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        inner = dict.fromkeys([*new, *old])
        return [key for each in inner for key in _differing(each, old, new, f"{prefix}{name}.")]
    return [] if old == new else [f"{prefix}{name}"]


ORDER: tuple[Kind, ...] = ("images", "labels", "pins", "weights", "params", "code", "never_run", "output")


def sentence_of(reasons: Mapping[str, tuple[Reason, ...]]) -> str:
    """The reasons of all stages, each once, and whether the backbone is unchanged; empty without a reason.

    Changed inputs from other stages are left out where there is any other reason.
    """
    every = [reason for each in reasons.values() for reason in each]
    if not every:
        return ""
    if all(reason.kind == "never_run" for reason in every):
        return "nothing has run yet" if set(reasons) >= set(STAGES) else f"{some(list(reasons))} never ran"
    parts = [words for kind in ORDER if kind != "output" for words in _words(kind, every)] or _words("output", every)
    return f"{', '.join(parts)}{'' if _backbone_changed(reasons) else '; backbone unchanged'}"


def _words(kind: Kind, every: list[Reason]) -> list[str]:
    those = [reason for reason in every if reason.kind == kind]
    if kind in ("params", "code"):
        names = dict.fromkeys(name for reason in those for name in reason.names)
        return [reason.words for reason in _of_names(kind, names)]
    words = list(dict.fromkeys(reason.words for reason in those))
    return words if len(words) <= NAMED else [*words[:NAMED], f"{len(words) - NAMED} more"]


def _backbone_changed(reasons: Mapping[str, tuple[Reason, ...]]) -> bool:
    of_features = reasons.get("features", ())
    keys = {f"features.{key}" for key in BACKBONE}
    return any(reason.kind in ("weights", "never_run") or keys & {*reason.names} for reason in of_features)


def some(names: Iterable[str]) -> str:
    """The first names, and the number of further ones."""
    each = list(names)
    more = f" and {len(each) - NAMED} more" if len(each) > NAMED else ""
    return f"{', '.join(each[:NAMED])}{more}"
