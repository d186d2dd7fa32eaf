"""The data set of the model: Croissant 1.0, a JSON-LD description.

http://mlcommons.org/croissant/1.0
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graft.tasks.common.core.files import md5
from graft.tasks.common.data.manifest import COLUMNS, SPLITS

from .evidence import LISTING, MANIFEST, REJECTED
from .facts import Document, Facts

NAME = "croissant.json"

OWN = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
"""The names that Croissant adds to those of schema.org."""

CONTEXT: Document = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in OWN},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}

TYPES = {"string": "sc:Text", "float64": "sc:Float", "int32": "sc:Integer"}

MEANINGS = {
    "image_id": "md5 of the file",
    "path": "path below data/raw",
    "label": "class, classes separated by |, or number",
    "task": "what the labels are",
    "split": "train, val or test",
    "group": "images of a group are in one split",
    "weight": "weight in training",
    "width": "pixels",
    "height": "pixels",
    "mode": "Pillow's mode of the file",
    "channels": "as how many channels the image is read",
    "pixels": "hash of the decoded pixels",
    "mask": "path of the mask of a defect, below data/raw",
    "target": "path of the image to be decoded, below data/raw",
}


def croissant(facts: Facts) -> Document:
    """The whole document."""
    data, card = facts.trace["data"], facts.card
    licence = card.data_license
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"{facts.trace['name']}-data",
        "description": _description(facts),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        **({"license": licence} if licence else {}),
        **({"creator": {"@type": "sc:Organization", "name": card.provider}} if card.provider else {}),
        "version": _version(data["raw"]),
        "identifier": data["raw"],
        "datePublished": facts.trace["registered"][:10],
        "url": _url(facts),
        "distribution": [*_files(facts)],
        "recordSet": [*_records(facts)],
    }


def _description(facts: Facts) -> str:
    data = facts.trace["data"]
    images = f"{data['images']:,} images" if "images" in data else "Images"
    source = f" {facts.card.data_source}" if facts.card.data_source else ""
    return (
        f"{images} from which {facts.title} was made; DVC's hash of data/raw is {data['raw'] or 'not known'}.{source}"
    )


def _version(raw: str) -> str:
    """A semantic version, as Croissant asks for: the hash is its build."""
    return f"1.0.0+{raw.removesuffix('.dir')}" if raw else "1.0.0"


def _url(facts: Facts) -> str:
    return facts.trace["code"]["repository"] or f"urn:graft:{facts.trace['name']}:data"


def _files(facts: Facts) -> Iterator[Document]:
    kinds = {
        MANIFEST: ("manifest", "application/x-parquet", "the images that were used, one row each"),
        REJECTED: ("rejected", "application/x-parquet", "the files that were rejected, and why"),
        LISTING: ("raw", "application/json", "every file of data/raw with its md5; its own md5 is the version"),
    }
    for name, (short, kind, meaning) in kinds.items():
        if facts.has(name):
            yield {
                "@type": "cr:FileObject",
                "@id": short,
                "name": short,
                "description": meaning,
                "contentUrl": name,
                "contentSize": f"{(facts.folder / name).stat().st_size} B",
                "encodingFormat": kind,
                "sha256": facts.sha256(name),
                "md5": md5(facts.folder / name),
            }


def _records(facts: Facts) -> Iterator[Document]:
    splits = [{"splits/name": name} for name in SPLITS]
    yield _named("splits", "The three splits.", splits, "cr:Split")
    if facts.classes:
        yield _named("classes", "The classes.", [{"classes/name": name} for name in facts.classes], "sc:Text")
    if facts.has(MANIFEST) and facts.images is not None:
        yield _images([*facts.images.columns])


def _named(name: str, meaning: str, rows: Sequence[Document], kind: str) -> Document:
    key = {"@id": f"{name}/name"}
    field = {"@type": "cr:Field", **key, "name": "name", "description": "The name.", "dataType": "sc:Text"}
    of = {"dataType": kind} if kind != "sc:Text" else {}
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": meaning,
        **of,
        "key": key,
        "field": [field],
        "data": rows,
    }


def _images(columns: Sequence[str]) -> Document:
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "The images that were used; the images themselves are not in the packet.",
        "key": {"@id": "images/path"},
        "field": [_field(name) for name in columns if name in COLUMNS],
    }


def _field(name: str) -> Document:
    more: dict[str, Any] = {"references": {"field": {"@id": "splits/name"}}} if name == "split" else {}
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "description": MEANINGS[name],
        "dataType": TYPES[COLUMNS[name]],
        "source": {"fileObject": {"@id": "manifest"}, "extract": {"column": name}},
        **more,
    }
