"""What `graft drift` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SHOWN = 5
"""Of the farthest images."""

MEANING = {
    "mmd": "The whole has moved: other light, another camera, another mix of classes.",
    "far": "There are images like none that it was trained on; the farthest are named above.",
}


def print_drift(found: dict[str, Any]) -> None:
    """What was compared, both tests, and what they mean."""
    model = f"{found['model']} version {found['version']}"
    print(f"model     {model}, by {found['reference_images']:,} images of its data\ntoday     {found['what']}")
    if found["left_out"]:
        print(f"left out  {', '.join(f'{count:,} {reason}' for reason, count in found['left_out'].items())}")
    of = found["compared"]
    if (of["reference_groups"], of["groups"]) != (found["reference_images"], found["images"]):
        print(
            f"compared  {of['images']:,} images of {of['groups']:,} groups with {of['reference_images']:,} of"
            f" {of['reference_groups']:,} of its training"
        )
    print(f"\n{'':<20}{'found':>9}{'by chance':>12}{'p':>10}")
    for line in _rows(found):
        print(line)
    print(f"\nby chance: what images that are alike exceed in {100 * found['significance']:g} % of comparisons")
    for place, one in enumerate(found["farthest"][:SHOWN]):
        print(f"{'' if place else 'farthest':<10}{one['path']}  {one['distance']:.2f}")
    print(f"plot      {found['plot']}\nfigures   {found['file']}\n")
    for line in sentences(found, model):
        print(line)


def _rows(found: dict[str, Any]) -> Iterator[str]:
    for key, name, form in (("mmd", "shift of the whole", ".3f"), ("far", "share far from all", ".1%")):
        test = found[key]
        verdict = "drift" if key in found["tests"] else ""
        yield f"{name:<20}{test['value']:>9{form}}{test['chance']:>12{form}}{test['p']:>10.2g}  {verdict}".rstrip()


def sentences(found: dict[str, Any], model: str) -> Iterator[str]:
    """The verdict in words."""
    if found["verdict"] == "drift":
        yield f"drift: today's images differ from those that {model} was trained on."
        yield from (MEANING[test] for test in found["tests"])
        return
    images = found["compared"]["images"]
    yield f"none: as far as {images:,} images can tell, they are like those that {model} was trained on."
    yield f"A shift of the whole below {found['mmd']['chance']:.3f} is not told from chance by so many."
    if found["mmd"]["value"] < found["mmd"]["min_effect"] and found["mmd"]["p"] <= found["significance"]:
        yield f"(The shift is more than chance, but below drift.min_effect, {found['mmd']['min_effect']:g}.)"
