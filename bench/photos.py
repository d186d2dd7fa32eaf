"""A set of photographs of about 512 x 384 pixels, made from a folder of larger or smaller ones.

    python -m bench.photos SOURCE TARGET --count 2000

Photograph i of a set depends on the source, the seed and i alone: it is a random crop of one original, resized and
saved as JPEG (quality 90, 4:2:0). So a larger set begins with the smaller one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CLASSES = ("first", "second")
WIDTHS = (448, 576)
"""Pixels: the least and the greatest width of a photograph; 512 on average."""

ASPECT = 4 / 3
LEAST = (384, 288)
"""Pixels: originals that are smaller would have to be blown up, which makes files that decode too fast."""


def originals(folder: Path) -> list[Path]:
    """Every image below `folder` that is large enough, sorted.

    Raises:
        SystemExit: there is none.
    """
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and _large_enough(path)]
    if not found:
        sys.exit(f"{folder} holds no photograph of at least {LEAST[0]} x {LEAST[1]} pixels; name one with --photos")
    return found


def _large_enough(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.format == "JPEG" and image.width >= LEAST[0] and image.height >= LEAST[1]
    except (UnidentifiedImageError, OSError):
        return False


def name_of(number: int) -> str:
    """The path of a photograph in its set: two classes by turns."""
    return f"{CLASSES[number % 2]}/photo-{number:06}.jpg"


def make_photo(sources: list[Path], number: int, target: Path, seed: int = 0) -> None:
    """Writes photograph `number` below `target`."""
    rng = np.random.default_rng([seed, number])
    with Image.open(sources[rng.integers(len(sources))]) as image:
        image.load()
        upright = ImageOps.exif_transpose(image).convert("RGB")
    width = int(rng.integers(WIDTHS[0], WIDTHS[1] + 1))
    size = (width, round(width / ASPECT))
    photo = upright.resize(size, Image.Resampling.LANCZOS, box=_random_box(upright.size, rng))
    path = target / name_of(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path, "JPEG", quality=90, subsampling="4:2:0")


def _random_box(size: tuple[int, int], rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a crop of aspect 4:3 with 70 to 100 % of the sides that fit."""
    scale = rng.uniform(0.7, 1.0)
    width = scale * min(size[0], size[1] * ASPECT)
    height = width / ASPECT
    left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    return left, top, left + width, top + height


def make_photos(source: Path, target: Path, count: int, seed: int = 0) -> None:
    """`count` photographs below `target`; those that are there already from the same source and seed are kept."""
    label = target / "made-from.txt"
    origin = f"{source.resolve()}\nseed {seed}\n"
    if target.exists() and (not label.is_file() or label.read_text(encoding="utf-8") != origin):
        shutil.rmtree(target)
    numbers = [number for number in range(count) if not (target / name_of(number)).is_file()]
    if not numbers:
        return
    sources = originals(source)
    target.mkdir(parents=True, exist_ok=True)
    label.write_text(origin, encoding="utf-8")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda number: make_photo(sources, number, target, seed), numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make_photos(options.source, options.target, options.count, options.seed)


if __name__ == "__main__":
    main()
