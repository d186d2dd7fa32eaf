"""What `graft drift` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SHOWN = 5
"""The number of farthest images that are printed."""

MEANING = {
    "mmd": "There is an overall shift: other light, another camera, or other subjects.",
    "far": "Some images are unlike any training image; the farthest are named above.",
}


def print_drift(found: dict[str, Any]) -> None:
    """What was compared, both tests, and their meaning."""
    model = f"{found['model']} version {found['version']}"
    print(f"model     {model}, {found['reference_images']:,} of its images\nnew       {found['what']}")
    if found["left_out"]:
        print(f"left out  {', '.join(f'{count:,} {reason}' for reason, count in found['left_out'].items())}")
    of = found["compared"]
    if (of["reference_groups"], of["groups"]) != (found["reference_images"], found["images"]):
        print(
            f"compared  {of['images']:,} images in {of['groups']:,} groups with "
            f"{of['reference_images']:,} training images in {of['reference_groups']:,} groups"
        )
    print(f"\n{'':<20}{'found':>9}{'by chance':>12}{'p':>10}")
    for line in _rows(found):
        print(line)
    print(f"\nby chance: the value that is exceeded in {100 * found['significance']:g} % of comparisons without drift")
    for place, one in enumerate(found["farthest"][:SHOWN]):
        print(f"{'' if place else 'farthest':<10}{one['path']}  {one['distance']:.2f}")
    print(f"plot      {found['plot']}\nmetrics   {found['file']}\n")
    for line in sentences(found, model):
        print(line)


def _rows(found: dict[str, Any]) -> Iterator[str]:
    for key, name, form in (("mmd", "overall shift", ".3f"), ("far", "share of far images", ".1%")):
        test = found[key]
        verdict = "drift" if key in found["tests"] else ""
        yield f"{name:<20}{test['value']:>9{form}}{test['chance']:>12{form}}{test['p']:>10.2g}  {verdict}".rstrip()


def sentences(found: dict[str, Any], model: str) -> Iterator[str]:
    """The verdict in words."""
    if found["verdict"] == "drift":
        yield f"drift: the new images differ from those that {model} was trained on."
        yield from (MEANING[test] for test in found["tests"])
        return
    images = found["compared"]["images"]
    yield f"no drift: as far as {images:,} images can tell, they are like those that {model} was trained on."
    yield f"With so many images, an overall shift below {found['mmd']['chance']:.3f} cannot be told from chance."
    if found["mmd"]["value"] < found["mmd"]["min_effect"] and found["mmd"]["p"] <= found["significance"]:
        yield f"(The shift is significant, but below drift.min_effect, {found['mmd']['min_effect']:g}.)"
