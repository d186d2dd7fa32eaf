"""Which formats are opened, and what the header says that decoding will cost."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from PIL import Image

from .limits import MB, SCALED_FROM, Limits
from .unreadable import Refused

FORMATS = (
    "JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF", "JPEG2000", "PPM", "MPO", "TGA", "DIB", "DDS", "ICO",
    "PCX", "PSD", "QOI", "SGI",
)  # fmt: skip
"""Image formats that are decoded. PIL knows more: for EPS it starts Ghostscript, which executes the file."""

QUICK = frozenset({"JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "TGA"})
"""Those whose time is bounded by pixels, bytes and scans, so that they need no process of their own."""

QUICK_BYTES, QUICK_SCANS, QUICK_PYTHON = 512 * MB, 500_000_000, 1_000_000
"""The most that is decoded in this process: bytes; pixels x scans of a JPEG (0.5 to 1.5 s); pixels of a format whose
decoder is written in Python (1 s)."""

_UNTRIED = ("AVIF", "JPEG2000", "HEIF")
"""Formats whose headers, too, are only read in a process of their own."""

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Of HEIF files that Pillow cannot read. AVIF files may begin with `mif1`, and then name `avif` further on."""

_BYTES = {"JPEG": 8, "MPO": 8, "PNG": 8, "BMP": 8, "WEBP": 20}
"""Bytes per pixel at the peak, as measured."""

_STRIPS = (279, 325)
"""TIFF's tags with the number of bytes of each strip or tile."""


@dataclass(frozen=True)
class Cost:
    """Attributes:
    bytes: of memory at the peak, roughly.
    quick: whether it is bounded in time and memory without a process of its own.
    """

    bytes: int
    quick: bool


OPAQUE = Cost(256 * MB, quick=False)
"""Of an image whose header this process does not read, and the least that a process of its own is given."""


def open_image(content: bytes) -> Image.Image:
    """Opens an image of one of the `FORMATS`; reads its header only.

    Raises:
        PIL.UnidentifiedImageError: it is not one.
    """
    return Image.open(io.BytesIO(content), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those that can be read here."""
    Image.init()
    if find_spec("pi_heif") is not None:
        import_module("pi_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_opaque(content: bytes) -> bool:
    """Whether even the header has to be read in a process of its own.

    Raises:
        Refused: it is HEIC, and the library for it is not installed.
    """
    if content[4:8] == b"ftyp" and content[8:12] in _BRANDS and b"avif" not in content[8:64]:
        if find_spec("pi_heif") is None:
            raise Refused("HEIC cannot be read without the extra `heic`: pip install 'graft[heic]'")
        return True
    return any(_accepts(name, content[:16]) for name in _UNTRIED)


def _accepts(name: str, prefix: bytes) -> bool:
    accept = Image.OPEN[name][1] if name in _formats() else None
    return accept is not None and accept(prefix) is True


def cost_of(image: Image.Image, content: bytes) -> Cost:
    """What decoding an opened image takes."""
    pixels, name = image.width * image.height, str(image.format)
    size = pixels * _BYTES.get(name, 12) + len(content)
    if image.info.get("progressive"):  # holds all coefficients, of the full size
        size += 6 * pixels * _scaled_by(image) ** 2
    quick = name in QUICK and size <= QUICK_BYTES and not _is_in_python(image, pixels)
    if name in ("JPEG", "MPO"):  # a marker is never part of the coded pixels
        quick = quick and content.count(b"\xff\xda") * pixels <= QUICK_SCANS
    quick = quick and (name != "TIFF" or _has_own_strips(image, content))
    return Cost(size if quick else max(size, OPAQUE.bytes), quick)


def _scaled_by(image: Image.Image) -> int:
    """By how much `fit` has scaled a JPEG down."""
    return int((getattr(image, "decoderconfig", None) and image.decoderconfig[0]) or 1)  # type: ignore[attr-defined]


def _is_in_python(image: Image.Image, pixels: int) -> bool:
    tiles: list[Any] = getattr(image, "tile", [])
    return pixels > QUICK_PYTHON and any(tile[0] in Image.DECODERS for tile in tiles)


def _has_own_strips(image: Image.Image, content: bytes) -> bool:
    """Whether the strips do not overlap: thousands of them may name the same bytes, which are decoded once for each."""
    tags: Any = getattr(image, "tag_v2", {})
    return sum(int(count) for tag in _STRIPS for count in tags.get(tag, ())) <= len(content)


def fit(image: Image.Image, limits: Limits) -> None:
    """Checks the size of an opened image, and has a huge JPEG decoded at a smaller size.

    Raises:
        Refused: it exceeds a limit.
    """
    width, height = size_of(image)
    scale = next((s for s in (1, 2, 4, 8) if width * height <= SCALED_FROM * s * s), 8)
    if scale > 1 and image.format in ("JPEG", "MPO"):
        image.draft("", (width // scale, height // scale))
        width, height = image.size
    reason = limits.refusal(width, height)
    if reason:
        raise Refused(reason)


def size_of(image: Image.Image) -> tuple[int, int]:
    """(width, height); of an icon those of the picture in it, which may differ from what its directory says."""
    icon: Any = getattr(image, "ico", None)
    if icon is None:
        return image.size
    inside = icon.frame(icon.getentryindex(image.size))
    return max(image.width, inside.width), max(image.height, inside.height)
