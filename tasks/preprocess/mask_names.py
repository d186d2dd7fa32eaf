"""The files of masks in a folder `ground_truth/`, and the images they belong to, by names alone. A mask says which
pixels of an image are a defect; it is never an image of its own.

MVTec AD's layout (Bergmann et al. 2019): `test/KIND/NAME.png` has its mask in `ground_truth/KIND/NAME_mask.png`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .layouts import Layout, hidden, may_be_image

ENDING = "_mask"
"""What the name of a mask may have at its end, after the name of its image."""


@dataclass(frozen=True)
class Masks:
    """Attributes:
    of: image -> its mask.
    left: mask -> why it belongs to no image.
    """

    of: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """All files of masks."""
        return {*self.of.values(), *self.left}


def masks_in(files: Iterable[str], layout: Layout) -> Masks:
    """The masks among the files of a folder with this layout."""
    names = [file for file in files if may_be_image(file) and not hidden(file)]
    written = sorted(file for file in names if layout.is_mask(file))
    if not written:
        return Masks()
    images = _by_key(names, layout)
    found, left = dict[str, str](), dict[str, str]()
    for mask in written:
        fitting = _images_of(mask, layout, images)
        if not fitting:
            left[mask] = "a mask without an image"
        elif len(fitting) > 1:
            left[mask] = f"a mask that may be of several images: {', '.join(fitting[:3])}"
        elif fitting[0] in found:
            left[mask] = f"a second mask of {fitting[0]}"
        else:
            found[fitting[0]] = mask
    return Masks(found, left)


def _by_key(names: Iterable[str], layout: Layout) -> Mapping[str, list[str]]:
    """Place without a suffix, with its split and without -> images."""
    images = defaultdict[str, list[str]](list)
    for name in names:
        place = layout.place(name)
        if place and not layout.is_mask(name):
            key = _stem(place)
            images[key].append(name)
            if layout.form == "splits":
                images[key.partition("/")[2]].append(name)
    return images


def _images_of(mask: str, layout: Layout, images: Mapping[str, list[str]]) -> list[str]:
    """The images that a mask may belong to; where several splits have one, that of the test, as MVTec means it."""
    key = _stem((layout.place(mask) or "").partition("/")[2])
    for one in (key, key.removesuffix(ENDING)):
        found = images.get(one, [])
        tested = [name for name in found if layout.split(name) == "test"]
        if found:
            return tested if len(tested) == 1 else found
    return []


def _stem(place: str) -> str:
    folder, _, name = place.rpartition("/")
    return f"{folder}/{name.rpartition('.')[0] or name}"
