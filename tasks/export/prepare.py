"""The lines of Python with which a client of the OpenVINO file makes the network's pixels from a picture.

They do what `EvalTransform` does, with nothing but Pillow and NumPy. The proof of an export runs them.
"""

from __future__ import annotations

from ..common.images.transform import EvalTransform


def lines(transform: EvalTransform) -> str:
    """The definition of `prepare(picture)`: uint8 (H, W, C) of any size in, uint8 (h, w, C) out."""
    return "\n".join([*_head(transform), *_size(transform), *_tail(transform), ""])


def _head(transform: EvalTransform) -> list[str]:
    return [
        "import math",
        "",
        "import numpy as np",
        "from PIL import Image",
        "",
        "",
        "def prepare(picture):",
        f"    height, width, fill = {transform.height}, {transform.width}, {_fill(transform)}",
        "    h, w = picture.shape[:2]",
    ]


def _fill(transform: EvalTransform) -> list[int]:
    border = transform.crop_mode == "border"
    return [round(255 * value) if border else 0 for value in transform.mean]


def _size(transform: EvalTransform) -> list[str]:
    """The size after the resize, as (across, down)."""
    across, down = (f"math.floor({side} / {transform.crop_pct!r})" for side in ("width", "height"))
    if transform.crop_mode == "squash":
        return [f"    size = {across}, {down}"]
    if transform.crop_mode == "center" and transform.height == transform.width:
        return [
            f"    short = {down}",
            "    size = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)",
        ]
    pick = "max" if transform.crop_mode == "border" else "min"
    return [
        f"    ratio = {pick}(h / {down}, w / {across})",
        "    size = max(1, round(w / ratio)), max(1, round(h / ratio))",
    ]


def _tail(transform: EvalTransform) -> list[str]:
    """Each band by itself, as Pillow would mix those of four."""
    resampling = f"Image.Resampling.{transform.interpolation.upper()}"
    return [
        f"    bands = [Image.fromarray(band).resize(size, {resampling}) for band in np.moveaxis(picture, 2, 0)]",
        "    pixels = np.dstack([np.asarray(band) for band in bands])",
        "    down, across = max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1])",
        "    padded = np.full((pixels.shape[0] + down, pixels.shape[1] + across, len(fill)), fill, np.uint8)",
        "    padded[down // 2 :, across // 2 :][: pixels.shape[0], : pixels.shape[1]] = pixels",
        "    top, left = round((padded.shape[0] - height) / 2), round((padded.shape[1] - width) / 2)",
        "    return padded[top : top + height, left : left + width]",
    ]
