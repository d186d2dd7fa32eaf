"""From bytes to the pixels that a network sees: decoding with PIL alone.

timm itself decodes and resizes with PIL, so the pixels are the same. Neither torch nor timm is imported, so a packaged
model needs neither.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from .deep import Range, is_deep, to_grey
from .formats import fit, open_image
from .limits import MB, Limits
from .palette import Palette
from .strips import strips
from .unreadable import Refused as Refused
from .unreadable import UnreadableImage as UnreadableImage
from .unreadable import WrongForm as WrongForm
from .unreadable import understood

Pixels = npt.NDArray[np.uint8]
"""uint8, shape (H, W, C); RGB where C is 3."""


Picture = tuple[Image.Image, ...]
"""An upright image of 8 bits: one RGB image for three channels, otherwise one grey image per channel."""


BACKGROUND = (255, 255, 255)
"""The colour behind transparent pixels."""


REACH = {Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}
"""Half the width of a filter, in pixels of the smaller image."""


_RAW_MODES = ("LA", "RGBA", "RGBX", "CMYK")
"""PIL's modes whose bands are used unchanged: none is an index into a palette or multiplied by another."""


_ARRAY = b"\x93NUMPY"
"""How a .npy file begins."""


@dataclass(frozen=True)
class Decoded:
    """An image in the requested number of channels, but for the range of its values.

    Attributes:
        mode: PIL's mode of the file; `array` for a .npy file.
        picture: in 8 bits, unless it is `deep`.
        palette: of a palette image.
    """

    mode: str
    picture: Picture
    palette: Palette | None = None

    @property
    def deep(self) -> Image.Image | None:
        """A grey image of more than 8 bits or of floats, as it is in the file."""
        return self.picture[0] if is_deep(self.picture[0]) else None

    def eight_bits(self, channels: int, span: Range | None) -> Picture:
        """With the range of the data set applied, see `deep.to_grey`.

        Raises:
            WrongForm: it has floats, and there is no range.
        """
        if self.deep is None:
            return self.picture
        grey = to_grey(self.deep, span)
        return (grey,) if channels == 1 else (grey.convert("RGB"),)


def decode_image(image: Image.Image, channels: int, limits: Limits) -> Decoded:
    """The first frame of an opened image, upright, with `channels` channels.

    EXIF orientation is applied. For one channel everything becomes grey and for three RGB, as PIL converts them, with
    transparency composited on `BACKGROUND`. For any other number the bands are used unchanged, without mixing or
    compositing, from PIL's modes of two and four bands.

    Raises:
        Refused: it is larger than its header says, and exceeds a limit.
        WrongForm: it has other bands.
        Exception: PIL's plugins raise almost anything for damaged bytes, see `unreadable.understood`.
    """
    mode = image.mode
    image.load()
    reason = limits.refusal(*image.size)
    if reason:
        raise Refused(reason)
    palette = Palette.of(image) if mode == "P" else None
    ImageOps.exif_transpose(image, in_place=True)
    return Decoded(mode, _bands(image, channels), palette)


def is_array(content: bytes) -> bool:
    return content.startswith(_ARRAY)


def array_cost(content: bytes, limits: Limits) -> int:
    """Bytes that decoding a .npy file takes: itself, its array, and images of up to four bytes per three values.

    Raises:
        Refused: that is more than one image may take.
    """
    cost = 4 * len(content)
    if cost > limits.max_memory_mb * MB:
        raise Refused(f"too large: {len(content) / MB:,.0f} MB, which count four times, see `preprocess.max_memory_mb`")
    return cost


def decode_array(content: bytes, channels: int) -> Decoded:
    """A .npy file of uint8, shape (H, W, C) or (H, W), with exactly this number of channels.

    Raises:
        WrongForm: it is an array of another type or shape.
        UnreadableImage: it is damaged.
    """
    return Decoded("array", _array_bands(content, channels))


def decode_here(content: bytes, channels: int, limits: Limits) -> Decoded:
    """An image of one of the `FORMATS`, in this process whatever it costs; see `decode_image`.

    Raises:
        Refused: it exceeds a limit.
        UnreadableImage: it is not an image, or is damaged.
    """
    with understood(), open_image(content) as image:
        fit(image, limits)
        return decode_image(image, channels, limits)


def _bands(image: Image.Image, channels: int) -> Picture:
    if channels in (1, 3) and is_deep(image):
        return (image if image.mode in ("I;16", "I", "F") else image.convert("I"),)
    if channels == 3:
        return (_to_rgb(image),)
    if channels == 1:
        return (_to_grey(image),)
    if image.mode in _RAW_MODES and len(image.getbands()) == channels:
        return image.split()
    raise WrongForm(f"{len(image.getbands())} bands ({image.mode}), needed {channels}")


def _array_bands(content: bytes, channels: int) -> Picture:
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, which may raise anything
        raise UnreadableImage(str(error) or type(error).__name__) from error
    if values.ndim == 2:
        values = values[..., None]
    if values.dtype != np.uint8 or values.ndim != 3 or not values.size:
        raise WrongForm(f"array of {values.dtype}, shape {values.shape}, needed uint8 (H, W, C)")
    if values.shape[2] != channels:
        raise WrongForm(f"{values.shape[2]} bands (array), needed {channels}")
    if channels == 3:
        return (Image.fromarray(np.ascontiguousarray(values)),)
    return tuple(Image.fromarray(np.ascontiguousarray(values[..., c])) for c in range(channels))


def pixels_of(picture: Sequence[Image.Image]) -> Pixels:
    """The values of an RGB image, or of one grey image per channel."""
    planes = [np.asarray(image) for image in picture]
    return planes[0] if planes[0].ndim == 3 else np.dstack(planes)


def _to_grey(image: Image.Image) -> Image.Image:
    plain = image.mode == "L" and "transparency" not in image.info
    return image if plain else _to_rgb(image).convert("L")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_background(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_background(image: Image.Image) -> Image.Image:
    whole = Image.new("RGB", image.size)
    for top, part in strips(image):
        layered = part.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        whole.paste(Image.alpha_composite(canvas, layered).convert("RGB"), (0, top))
    return whole
