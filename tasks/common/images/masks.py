"""Masks of defects: images whose pixels above 0 are the defect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from .limits import Limits
from .reading import content_of, decoding


def read_mask(path: Path, limits: Limits | None = None) -> npt.NDArray[np.bool_]:
    """Where a mask marks a defect: (H, W), upright; the first frame, as grey.

    Raises:
        OSError: it cannot be read.
        UnreadableImage: it is not an image, is damaged, or exceeds a limit.
    """
    limits = limits or Limits()
    with content_of(path, limits) as content, decoding(content, 1, limits) as decoded:
        return np.asarray(decoded.picture[0]) > 0
