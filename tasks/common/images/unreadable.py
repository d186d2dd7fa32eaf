"""Why bytes do not become an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image


class UnreadableImage(ValueError):
    """Bytes that are not an image, or are truncated; the cause is the error of PIL or its plugin."""


class WrongForm(UnreadableImage):
    """A valid image with other bands than requested, values without a range, or an array that is not an image."""


class Refused(UnreadableImage):
    """An image that was not decoded: it exceeds a limit, or needs a library that is not installed. That does not depend
    on its bytes alone, so it must not be remembered."""


class TooLittle(Refused):
    """More memory is needed than was given.

    Attributes:
        seconds: of a processor, which it took to find out.
    """

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


@contextmanager
def understood() -> Iterator[None]:
    """Raises:
    UnreadableImage: in place of almost any error that PIL's plugins raise for damaged bytes.
    """
    try:
        yield
    except (UnreadableImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Refused(f"too large: {error}, whatever `preprocess.max_pixels` says") from error
    except Exception as error:
        raise UnreadableImage(str(error) or type(error).__name__) from error


def in_words(error: Exception) -> str:
    """Why a file is not an image that can be read, for people: of an `UnreadableImage` or an `OSError`."""
    if isinstance(error, WrongForm | Refused):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "not an image" if "cannot identify" in str(error) else f"damaged: {error}"
