"""Pictures that try to break a decoder: seeded mutations of every format, and monsters made by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "GIF",
    "BMP",
    "AVIF",
    "JPEG2000",
    "PPM",
    "TGA",
    "DDS",
    "ICO",
    "PCX",
    "QOI",
    "SGI",
)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def originals() -> list[bytes]:
    """Sound files: every format, and the variants that other code reads."""
    image = photo(56, 40)
    found = [encoded(image, form) for form in FORMATS]
    grey = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    found += [
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image.quantize(20), "PNG"),
        encoded(image.convert("RGBA"), "PNG"),
        encoded(grey, "PNG"),
        encoded(grey, "TIFF"),
        encoded(image.convert("F"), "TIFF"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "TIFF", compression="jpeg"),
        encoded(image, "WEBP", lossless=True),
        encoded(image, "GIF", save_all=True, append_images=[photo(56, 40, 1)]),
    ]
    stream = io.BytesIO()
    np.save(stream, np.asarray(image))
    return [*found, stream.getvalue()]


def mutations(count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` mutated files, the same for the same seed."""
    rng, files = np.random.default_rng(seed), originals()
    for number in range(count):
        yield mutated(files[number % len(files)], files[int(rng.integers(len(files)))], rng)


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes of one kind: bits, bytes, lengths, a cut, a repeated or a foreign piece. Half of them lie in
    the header."""
    changed = bytearray(content)
    kind = int(rng.integers(6))
    for _ in range(int(rng.integers(1, 9))):
        reach = min(len(changed), 64) if rng.random() < 0.5 else len(changed)
        place = int(rng.integers(max(1, reach)))
        if kind == 0:
            changed[place : place + 1] = bytes(
                [(changed[place] if place < len(changed) else 0) ^ 1 << int(rng.integers(8))]
            )
        elif kind == 1:
            changed[place : place + 4] = rng.bytes(4)
        elif kind == 2:
            changed[place : place + 4] = struct.pack(
                rng.choice(["<I", ">I"]), int(rng.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1]))
            )
        elif kind == 3:
            del changed[max(8, place) :]
        elif kind == 4:
            changed[place:place] = changed[place : place + int(rng.integers(1, 4096))]
        else:
            changed[place : place + 64] = other[place : place + 64]
    return bytes(changed)


def monsters() -> dict[str, bytes]:
    """Name -> a file that is valid, or nearly so, and wants gigabytes, minutes or both. About sixty."""
    made: dict[str, bytes] = {}
    for width, height in ((9_900, 9_900), (11_000, 11_000), (13_000, 13_000), (60_000, 60_000), (2_000_000, 90_000)):
        for mode in ("1", "L", "RGB", "RGBA", "16"):
            made[f"png-{mode}-{width}"] = png(width, height, mode)
    for width, height in ((16, 2_000_000), (2_000_000, 16), (16, 100_000), (1, 5_000_000), (16, 1_600)):
        made[f"png-strip-{width}x{height}"] = png(width, height, "RGB")
    for side in (9_000, 12_000):
        made[f"gif-{side}"] = encoded(Image.new("P", (side, side)), "GIF")
        made[f"tiff-16-{side}"] = encoded(Image.new("I;16", (side, side)), "TIFF", compression="tiff_lzw")
        made[f"tiff-float-{side}"] = encoded(Image.new("F", (side, side)), "TIFF", compression="packbits")
        made[f"jpeg-{side}"] = encoded(Image.new("RGB", (side, side)), "JPEG")
        made[f"jpeg-progressive-{side}"] = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
        made[f"bmp-1-{side}"] = encoded(Image.new("1", (side, side)), "BMP")
    made["webp-lossless-9000"] = encoded(Image.new("RGBA", (9_000, 9_000)), "WEBP", lossless=True, method=0)
    made["webp-16383"] = encoded(Image.new("RGB", (16_383, 3_000)), "WEBP", method=0)
    flat = encoded(Image.new("L", (8_000, 8_000)), "JPEG", progressive=True)
    for scans in (100, 600, 3_000):
        made[f"jpeg-scans-{scans}"] = many_scans(flat, scans)
        made[f"jpeg-small-scans-{scans}"] = many_scans(encoded(photo(400, 300), "JPEG", progressive=True), scans)
    made["tiff-shared-strips"] = shared_strips(4_000, 4_000)
    made["jpeg2000-4000"] = encoded(Image.new("RGB", (4_000, 4_000)), "JPEG2000")
    made["jpeg2000-layers"] = lied_about(encoded(photo(200, 200), "JPEG2000"), b"\xff\x52", 6, b"\xff\xff")
    made["jpeg2000-header"] = lied_about(
        encoded(photo(200, 200), "JPEG2000"), b"\xff\x51", 6, struct.pack(">II", 60_000, 60_000)
    )
    made["avif-4000"] = encoded(Image.new("RGB", (4_000, 4_000)), "AVIF", speed=10)
    made["qoi-4000"] = encoded(Image.new("RGB", (4_000, 4_000)), "QOI")
    made["npy-header"] = (
        b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999, 3), }".ljust(128)
        + b"\n"
    )
    made["icon-bomb"] = icon(png(13_000, 13_000, "RGB"))
    made["eps"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9000 9000\n{} loop\n"
    made["svg"] = b"<svg xmlns='http://www.w3.org/2000/svg' width='1e9' height='1e9'/>"
    made["png-text-bomb"] = png(64, 64, "RGB", extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000), 9)))
    return made


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, mode: str, extra: bytes = b"") -> bytes:
    """All zeros, so that gigabytes are kilobytes; of more than four the end is left out."""
    depth, colour, bits = {"1": (1, 0, 1), "L": (8, 0, 8), "RGB": (8, 2, 24), "RGBA": (8, 6, 32), "16": (16, 0, 16)}[
        mode
    ]
    rows = zeros(min(4 << 30, height * (1 + (width * bits + 7) // 8)))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """A zlib stream of so many zeros: one compressed megabyte, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(bytes(count % (1 << 20))) + packer.flush()
    return b"\x78\xda" + block * (count >> 20) + last + struct.pack(">I", (count % 65521) << 16 | 1)


def many_scans(jpeg: bytes, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + b"\xff\xd9"


def shared_strips(width: int, height: int) -> bytes:
    """A TIFF of one row a strip; all strips name the same megabyte of LZW that decodes to little."""
    data = (b"\x80\x0b\x60\x50" + bytes(1_000_000))[:1_000_000]
    offset = 8 + len(data)
    tables = struct.pack("<I", 8) * height + struct.pack("<I", len(data)) * height
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 5),
        (262, 3, 1, 1),
        (273, 4, height, offset),
        (278, 4, 1, 1),
        (279, 4, height, offset + 4 * height),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", offset + len(tables)) + data + tables + directory


def lied_about(content: bytes, marker: bytes, after: int, value: bytes) -> bytes:
    """A header field with another value."""
    place = content.index(marker) + after
    return content[:place] + value + content[place + len(value) :]


def icon(inside: bytes) -> bytes:
    """Its directory says 16 x 16."""
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22) + inside
