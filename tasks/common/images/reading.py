"""How the images of a data set are read: the same in every stage, in the studies and in the packaged model."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.errors import DataError
from ..core.files import read_json, write_json
from .decode import Decoded, Picture, array_cost, decode_array, decode_image, is_array
from .deep import Range
from .formats import OPAQUE, Cost, cost_of, fit, is_opaque, open_image
from .limits import DECODING, LARGE, LARGE_FILE, MB, Limits, give_back
from .sandbox import Share, decode_apart
from .shards import Member, bytes_of, opening, stored
from .unreadable import Refused, TooLittle, UnreadableImage, WrongForm, understood

NAME = "reading.json"
"""The file in data/manifest and data/features that tells the later stages."""


@dataclass(frozen=True)
class Reading:
    """Attributes:
    channels: 1 is grey, 3 RGB; any other number the bands of the files.
    span: the values that become black and white in grey images of more than 8 bits and in floats; None for a data set
        without such images.
    limits: what one image may take.
    """

    channels: int = 3
    span: Range | None = None
    limits: Limits = field(default_factory=Limits)

    @contextmanager
    def image(self, content: bytes) -> Iterator[Picture]:
        """The first frame of a file as an upright image of 8 bits. Its share of the memory is
        held until the block ends, so crop within it.

        Raises:
            UnreadableImage: it is not an image, or is damaged; its subclass `WrongForm`: it has other bands, `Refused`:
                it exceeds a limit.
        """
        with decoding(content, self.channels, self.limits) as decoded:
            picture = decoded.eight_bits(self.channels, self.span)
            try:
                yield picture
            finally:
                _free(picture)

    @contextmanager
    def file(self, path: Path, image_id: str | None = None) -> Iterator[Picture]:
        """The same, of a file that the preprocess stage has checked: the bytes that are hashed are those that are
        decoded.

        Args:
            image_id: the md5 that the file has in the manifest; None if it is in none.

        Raises:
            DataError: the file has been removed, changed or damaged since.
        """
        with ExitStack() as held:
            with _still_readable(path):
                content = held.enter_context(content_of(path, self.limits, image_id))
                picture = held.enter_context(self.image(content))
            yield picture

    def black(self) -> Picture:
        """What stands for an image that cannot be read: a black one of 8 x 8 pixels."""
        if self.channels == 3:
            return (Image.new("RGB", (8, 8)),)
        return tuple(Image.new("L", (8, 8)) for _ in range(self.channels))

    def as_dict(self) -> dict[str, Any]:
        return {"channels": self.channels, "range": self.span, **asdict(self.limits)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Reading:
        limits = {key: value for key, value in values.items() if key not in ("channels", "range")}
        span = values["range"]
        return cls(values["channels"], (float(span[0]), float(span[1])) if span else None, Limits(**limits))

    def save(self, folder: Path) -> None:
        write_json(folder / NAME, self.as_dict())

    @classmethod
    def load(cls, folder: Path, channels: int = 3) -> Reading:
        """Args:
        channels: of a folder that an earlier version of Graft wrote, without this file.
        """
        return cls.from_dict(read_json(folder / NAME)) if (folder / NAME).is_file() else cls(channels)


RESTORE = "restore the file (`dvc checkout data/raw`) or take it out, then run `graft repro` again"


@contextmanager
def content_of(path: Path, limits: Limits, image_id: str | None = None) -> Iterator[bytes]:
    """The bytes of a file, or of an image in a shard (see `shards`). Those of a large one are held until the block
    ends, one at a time.

    Args:
        image_id: the md5 that the file is listed with; None compares nothing.

    Raises:
        OSError: it cannot be read.
        Refused: it is larger than the memory that one image may take, or a device or pipe, which may never end.
        DataError: it has another md5, or its shard is damaged.
    """
    member = _member_of(path)
    if member is None:
        with opening(path) as (file, size), _room(size, limits):
            content = file.read(size + 1)  # no more, should it grow meanwhile
            _check(content, path, image_id)
            yield content
        return
    if image_id not in (None, member.md5):
        raise _changed(path, member.md5, image_id)
    with _room(member.size, limits):
        yield bytes_of(member, path)


def _room(size: int, limits: Limits) -> AbstractContextManager[Any]:
    _check_size(size, limits)
    return LARGE_FILE if size > LARGE else nullcontext()


def _member_of(path: Path) -> Member | None:
    """None for an ordinary file or a folder."""
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        member = stored(path)
        if member is None:
            raise
        return member
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise Refused("not a file, but a device, a pipe or a socket")
    return None


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.max_memory_mb * MB:
        raise Refused(f"too large: {size / MB:,.0f} MB, `preprocess.max_memory_mb` allows {limits.max_memory_mb:,}")


def _check(content: bytes, path: Path, image_id: str | None) -> None:
    found = image_id and hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != image_id:
        raise _changed(path, found, image_id)


def _changed(path: Path, found: str | None, image_id: str | None) -> DataError:
    return DataError(
        f"{path} has changed since it was listed",
        got=f"md5 {found}",
        allowed=f"md5 {image_id}",
        todo="run `graft repro` again, which takes the new content, or restore the file (`dvc checkout data/raw`)",
    )


@contextmanager
def _still_readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnreadableImage) as error:
        raise DataError(
            f"{path} cannot be read, though it could when it was checked", got=str(error), todo=RESTORE
        ) from error


@contextmanager
def decoding(content: bytes, channels: int, limits: Limits) -> Iterator[Decoded]:
    """An image that holds its share of the memory until the block ends; see `Reading.image`."""
    _check_size(len(content), limits)
    with ExitStack() as held:
        decoded = _decoded(content, channels, limits, held)
        held.callback(_free, decoded.picture)
        yield decoded


def _decoded(content: bytes, channels: int, limits: Limits, held: ExitStack) -> Decoded:
    if is_array(content):
        held.enter_context(_claimed(array_cost(content, limits)))
        return decode_array(content, channels)
    with understood():
        opened = None if is_opaque(content) else held.enter_context(open_image(content))
        if opened is not None:
            fit(opened, limits)
        cost = OPAQUE if opened is None else cost_of(opened, content)
    if opened is None or not cost.quick or cost.bytes > limits.max_memory_mb * MB:
        return held.enter_context(_apart(content, channels, limits, cost))
    held.enter_context(_claimed(cost.bytes))
    with understood():
        return decode_image(opened, channels, limits)


def _free(picture: Picture) -> None:
    """Frees large images now, and not when the last function that names them ends: the next image may be waiting."""
    for image in picture:
        if 4 * image.width * image.height > LARGE:
            image.close()


@contextmanager
def _apart(content: bytes, channels: int, limits: Limits, cost: Cost) -> Iterator[Decoded]:
    """In a process that is given what is claimed, which the system enforces; if that is too little, once more with all
    that one image may take."""
    whole, spent = Share.whole(limits), 0.0
    if cost.bytes < whole.bytes:
        with _claimed(cost.bytes):
            try:
                decoded = decode_apart(content, channels, limits, Share(cost.bytes, whole.seconds))
            except TooLittle as error:
                spent = error.seconds
            except (Refused, WrongForm):
                raise
            except UnreadableImage:
                spent = 0.0  # some libraries say so when they get no memory
            else:
                yield decoded
                return
    with _claimed(whole.bytes):
        yield decode_apart(content, channels, limits, Share(whole.bytes, max(0.01, whole.seconds - spent)))


@contextmanager
def _claimed(size: int) -> Iterator[None]:
    with DECODING.claim(size):
        if size > LARGE:
            give_back()
        yield
