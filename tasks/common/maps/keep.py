"""Maps on the disk: whether they fit, and whether they can be kept in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import ParamsError
from ..core.files import free_bytes
from ..core.paths import Paths
from ..core.progress import say
from ..feature_cache.segments import NotFinite


def check_room(paths: Paths, size: int, images: int) -> None:
    """Says how much disk the maps take.

    Args:
        size: bytes of the maps that are not there yet.
        images: whose maps they are.

    Raises:
        ParamsError: the disk has no room for them.
    """
    if not images:
        return
    free = free_bytes(paths.cache)
    if size > free:
        raise ParamsError(
            "params.yaml: the disk has no room for the feature maps",
            got=f"{size / 1e9:.1f} GB for {images:,} images, {size / images / 1e6:.2f} MB each",
            allowed=f"{free / 1e9:.1f} GB, three quarters of what is free",
            todo="set fewer `features.map_channels`, a smaller `features.image_size`, or coarser depths in "
            "`features.maps`; or free space (`graft cache gc`)",
        )
    say(f"features: the maps of {images:,} images take {size / 1e9:.2f} GB of disk, {size / images / 1e6:.2f} MB each")


@contextmanager
def finite(backbone: str) -> Iterator[None]:
    """Raises:
    ParamsError: the maps computed in the block do not fit into half precision.
    """
    try:
        yield
    except NotFinite as error:
        raise ParamsError(
            f"params.yaml: the maps of {backbone} cannot be kept in half precision",
            got=error.got,
            allowed="maps whose numbers are below 65,504",
            todo="name other depths in `features.maps`, or another network in `features.backbone`",
        ) from error
