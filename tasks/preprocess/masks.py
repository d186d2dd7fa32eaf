"""Whether masks and targets can be used. One that cannot is rejected; its image stays, without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from ..common.core.paths import Paths
from ..common.data.task import GOOD
from ..common.images.masks import read_mask
from .check import Look, look
from .check_cache import Memory, NoLook
from .params import PreprocessParams


def faults_of_targets(md5_of: Mapping[str, str], params: PreprocessParams, paths: Paths) -> dict[str, str]:
    """Target -> why it cannot be used; its size may be another one than that of its image.

    Args:
        md5_of: target -> md5; empty for a file that cannot be read.
    """
    channels = params.channels
    looks = Memory(paths.cache / "checks", channels).looks(
        {md5: paths.raw / target for target, md5 in md5_of.items() if md5},
        lambda md5, path: look(path, channels, params.limits, md5),
    )
    faults: dict[str, str] = {}
    for target, md5 in md5_of.items():
        seen = looks.get(md5)
        fault = seen.fault or params.limits.refusal(seen.width, seen.height) if isinstance(seen, Look) else ""
        if not isinstance(seen, Look):
            fault = str(seen.strerror if isinstance(seen, OSError) else seen or "cannot be read")
        faults |= {target: f"target: {fault}"} if fault else {}
    return faults


TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
"""PIL's modes with transparency: what is below a transparent pixel is not said."""


def faults_of_masks(
    images: pd.DataFrame, md5_of: Mapping[str, str], params: PreprocessParams, paths: Paths
) -> dict[str, str]:
    """Mask -> why it cannot be used.

    Args:
        images: columns `path`, `label`, `width`, `height` (of the image) and `mask`, null for images without one.
        md5_of: mask -> md5; empty for a file that cannot be read.
    """
    looks = Memory(paths.cache / "checks", 1).looks(
        {md5: paths.raw / mask for mask, md5 in md5_of.items() if md5},
        lambda md5, path: look(path, 1, params.limits, md5),
    )
    faults = dict(_faults(images.dropna(subset=["mask"]), md5_of, looks, params, paths))
    return {mask: f"mask: {fault}" for mask, fault in faults.items()}


def _faults(
    images: pd.DataFrame,
    md5_of: Mapping[str, str],
    looks: Mapping[str, Look | NoLook],
    params: PreprocessParams,
    paths: Paths,
) -> Iterator[tuple[str, str]]:
    for row in images.itertuples():
        seen = looks.get(md5_of[row.mask])
        if not isinstance(seen, Look):
            yield row.mask, str(seen.strerror if isinstance(seen, OSError) else seen or "cannot be read")
        elif seen.fault:
            yield row.mask, seen.fault
        elif refusal := params.limits.refusal(seen.width, seen.height):
            yield row.mask, refusal
        elif seen.mode in TRANSPARENT:
            yield row.mask, f"it has transparency ({seen.mode}); save it in black and white"
        elif (seen.width, seen.height) != (row.width, row.height):
            yield row.mask, f"{seen.width} x {seen.height} px, but {row.path} has {int(row.width)} x {int(row.height)}"
        else:
            marks = not seen.blank or bool(read_mask(paths.raw / row.mask, params.limits).any())
            if marks and row.label == GOOD:
                yield row.mask, f"it marks a defect, but {row.path} is labelled {GOOD}"
            elif not marks and row.label != GOOD:
                yield row.mask, f"it marks no pixel, but {row.path} is labelled {row.label}"
