"""Whether a file is an image worth learning from: every pixel is decoded once, and every refusal has a reason."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..common.images import UnreadableImage, decode
from ..common.progress import progress
from .scan import hidden

HIDDEN = "hidden file"
"""The reason that does not count against `preprocess.max_rejected`: systems leave such files about."""

FEW_COLOURS = 64
"""A drawn placeholder has few colours; a photograph saved with a palette uses most of its 256."""


@dataclass(frozen=True)
class Checked:
    """A file's verdict: `reason` is empty for an image that can be used.

    Attributes:
        width, height: in pixels, upright.
        mode: PIL's mode of the file.
        pixels: a hash of size and RGB values.
    """

    reason: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    pixels: str = ""


def check_files(raw: Path, files: Sequence[str], min_side: int, placeholder_share: float) -> list[Checked]:
    """One verdict a file, in the order given; a thread a core."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("preprocess: checking", len(files), "files") as bar:
        verdicts = []
        for verdict in pool.map(lambda file: check_file(raw / file, file, min_side, placeholder_share), files):
            verdicts.append(verdict)
            bar.add()
    return verdicts


def check_file(path: Path, name: str, min_side: int, placeholder_share: float) -> Checked:
    """Decodes a file whole and judges it."""
    if hidden(name):
        return Checked(HIDDEN)
    try:
        if path.stat().st_size == 0:
            return Checked("empty file")
        upright = decode(path)
    except OSError as error:
        return Checked(f"cannot be read: {error.strerror}")
    except UnreadableImage as error:
        return Checked("not an image" if isinstance(error.__cause__, UnidentifiedImageError) else f"damaged: {error}")
    except Image.DecompressionBombError as error:
        return Checked(f"too large: {error}")
    with Image.open(path) as image:
        mode, colours = image.mode, _palette_shares(image)
    width, height = upright.size
    reason = _too_little(upright, min_side) or _placeholder(colours, placeholder_share)
    return Checked(reason, width, height, mode, _pixel_hash(upright))


def _too_little(image: Image.Image, min_side: int) -> str:
    if min(image.size) < min_side:
        return f"too small: {image.width} x {image.height} px, the shorter side needs {min_side}"
    if all(low == high for low, high in image.getextrema()):  # type: ignore[misc]
        return "blank: every pixel has the same colour"
    return ""


def _palette_shares(image: Image.Image) -> list[float]:
    """The shares of a palette image's colours, largest first; empty for other images."""
    if image.mode != "P":
        return []
    counts = np.bincount(np.asarray(image).ravel(), minlength=1)
    return sorted((counts[counts > 0] / counts.sum()).tolist(), reverse=True)


def _placeholder(shares: list[float], limit: float) -> str:
    if not shares or len(shares) > FEW_COLOURS or shares[0] < limit:
        return ""
    return f"placeholder: one of its {len(shares)} colours covers {shares[0]:.0%} of the picture"


def _pixel_hash(image: Image.Image) -> str:
    digest = hashlib.blake2b(f"{image.width}x{image.height}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()
