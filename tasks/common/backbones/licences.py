"""The licences of pre-trained weights, as timm states them, and which of them forbid commercial use."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from ..core.files import json_digest, read_json, write_shared_json
from .modern import modern_of

NOT_STATED = "not stated"
"""Where timm says nothing, or `unknown`."""

NON_COMMERCIAL = ("cc-by-nc", "fair-noncommercial", "apple-amlr", "seer-license")
"""The beginnings of licences that allow research only, or exclude commercial use."""

KINDS = ("hub", "package", "file")
"""The sources of weights to which timm's statement applies; a file is taken to be timm's of this name."""


def is_non_commercial(licence: str) -> bool:
    """Whether a licence, as timm names it, excludes commercial use."""
    return licence.lower().startswith(NON_COMMERCIAL)


def named(licence: str) -> str:
    """A licence for people to read: those that exclude commercial use are marked."""
    return f"{licence} (non-commercial)" if is_non_commercial(licence) else licence


def licence_of(backbone: str, weights: str, cache: Path) -> str:
    """The licence of a network's weights; empty for weights that timm does not license: random ones, or those of Keras.

    It is remembered for each version of timm, because importing timm takes seconds.

    Args:
        backbone: timm's name.
        weights: kind and place, as in `Spec.weights`.
        cache: the folder for what is remembered.
    """
    if weights.partition(": ")[0] not in KINDS:
        return ""
    entry = modern_of(backbone)
    if entry is not None:
        return entry.licence
    memory = cache / "licences" / f"{json_digest({'timm': version('timm'), 'backbone': backbone})}.json"
    try:
        return str(read_json(memory)["licence"])
    except (FileNotFoundError, ValueError):  # not asked yet, or cut short by a crash
        found = licence_in_timm(backbone)
        write_shared_json(memory, {"backbone": backbone, "licence": found})
        return found


def licence_in_timm(backbone: str) -> str:
    """What timm's pretrained config states. Imports timm."""
    import timm

    from . import network  # noqa: F401  (timm then knows our own networks as well)

    config = timm.models.get_pretrained_cfg(backbone)
    return stated(getattr(config, "license", None))


def stated(licence: str | None) -> str:
    """The value of timm's field `license`, which may be missing or `unknown`."""
    return licence if licence and licence != "unknown" else NOT_STATED
