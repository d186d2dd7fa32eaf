"""Pictures with synthetic scratches in MVTec's layout: good ones to learn from, and a test with one half scratched.

python -m bench.scratches FOLDER OUT        FOLDER has photographs in folders of any depth

A scratch is a straight thin line, lighter or darker than what it crosses.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SUFFIXES = (".jpg", ".jpeg", ".png")

GOOD, TEST, SCRATCHED = 160, 140, 70
"""Pictures to learn from, to test on, and those of the test that get a scratch."""

LARGE, SIDE = 400, (100, 100)
"""Pictures with a shorter side above the first are made as small as the second: scratches would be hairs there."""

FINE = 4
"""Times that a line is drawn larger than the picture, for smooth edges."""

LENGTH, PLACE, WIDTH, STRENGTH = (0.2, 0.5), (0.25, 0.75), 0.012, (40, 90)
"""Of a line: its length and width as shares of the shorter side, its middle, and the grey levels that it changes."""


def make_scratches(photos: Path, out: Path, good: int = GOOD, test: int = TEST, scratched: int = SCRATCHED) -> Path:
    """Writes `train/good`, `test/good`, `test/scratch` and `ground_truth/scratch` below `out`, which is emptied.

    All pictures are PNG, so that a file's form does not tell which have a scratch. The same pictures each time.

    Raises:
        ValueError: there are too few pictures.
    """
    files = [file for file in sorted(photos.rglob("*")) if file.suffix.lower() in SUFFIXES]
    if len(files) < good + test:
        raise ValueError(f"{photos} has {len(files)} pictures; {good + test} are needed")
    shutil.rmtree(out, ignore_errors=True)
    random = np.random.default_rng(0)
    for number, place in enumerate(random.permutation(len(files))[: good + test]):
        picture = _open(files[place])
        name = f"{number:03}.png"
        if number < good + test - scratched:
            _save(picture, out / ("train" if number < good else "test") / "good" / name)
            continue
        found, mask = scratch(picture, random)
        _save(found, out / "test" / "scratch" / name)
        _save(mask, out / "ground_truth" / "scratch" / f"{number:03}_mask.png")
    return out


def scratch(picture: Image.Image, random: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """(the picture with a line, the line's mask: 255 where at least a quarter of a pixel is covered)."""
    side = min(picture.size)
    length, angle = random.uniform(*LENGTH) * side, random.uniform(0, 2 * np.pi)
    middle = np.array([random.uniform(*PLACE) * picture.width, random.uniform(*PLACE) * picture.height])
    half = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    large = Image.new("L", (picture.width * FINE, picture.height * FINE))
    ends = [tuple((FINE * (middle + sign * half)).tolist()) for sign in (-1, 1)]
    ImageDraw.Draw(large).line(ends, fill=255, width=round(FINE * max(1.0, WIDTH * side)))
    covered_HW = np.asarray(large.resize(picture.size, Image.Resampling.BOX), np.float32) / 255
    change = random.choice([-1, 1]) * random.uniform(*STRENGTH)
    found_HWC = np.asarray(picture, np.float32) + change * covered_HW[..., None]
    mask_HW = np.where(covered_HW >= 0.25, 255, 0).astype(np.uint8)
    return Image.fromarray(np.clip(found_HWC, 0, 255).astype(np.uint8)), Image.fromarray(mask_HW)


def _open(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    return picture.resize(SIDE) if min(picture.size) > LARGE else picture


def _save(picture: Image.Image, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    print(make_scratches(options.photos, options.out))


if __name__ == "__main__":
    main()
