"""What `graft trace` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.common.data.manifest import SPLITS
from tasks.common.data.task import MAIN

Document = dict[str, Any]

CLASSES = 30
"""Of a table; the others are counted."""

ROLES = {
    "train": "trained on it",
    "val": "validated on it",
    "test": "tested on it",
    "rejected": "rejected it",
    "seen": "trained on it, or keeps it as a sample",
    "held out": "held it out: validated or tested on it",
    "": "made of it",
}
"""Split -> what a model did with an image."""

DECISIONS = {
    "first": "first champion",
    "promoted": "promoted",
    "refused": "refused",
    "rolled_back": "rolled back to",
    "by_hand": "made champion by hand",
}


def print_lineage(document: Document) -> None:
    """The answer, whatever was asked for."""
    print("\n".join(lines(document)))


def lines(document: Document) -> Iterator[str]:
    """The same, line by line."""
    yield from _WRITERS[document["kind"]](document)


def name_of(document: Document) -> str:
    """What the answer is about."""
    kind = document["kind"]
    if kind == "model":
        aliases = f" ({', '.join(document['aliases'])})" if document["aliases"] else ""
        return f"{document['name']} version {document['version']}{aliases}"
    if kind == "run":
        return f"run {document['run_id'][:8]}: {document['name']}"
    if kind == "image":
        return f"image {document['asked_for']}"
    return f"{kind} {document['hash'] if kind == 'data' else document['commit'][:12]}"


def _model(document: Document) -> Iterator[str]:
    yield name_of(document)
    yield ""
    facts = {"registered": moment(document["registered"]), "test": figures(document["test"], document["task"])}
    facts |= _facts(document) | {"candidate": document["candidate"]}
    yield from _pairs(facts)
    yield from _history(document["history"])
    yield from _whole(document)


def _run(document: Document) -> Iterator[str]:
    yield name_of(document)
    yield ""
    yield from _pairs({"started": moment(document["started"]), "status": document["status"].lower()} | _facts(document))
    for use in document["versions"]:
        yield f"{'made':<14}{version_text(use)}"
    yield from _whole(document)


def _facts(document: Document) -> dict[str, str]:
    """What a version and a run have, a line each."""
    backbone, prefect = document["backbone"], document["prefect"]
    environment = document["environment"]
    return {
        "run": f"{document['parent_run_id']}  {document['run_name']}",
        "data": document["data"]["raw"],
        "images": images_text(document["data"]),
        "code": code_text(document["code"]),
        "backbone": backbone_text(backbone),
        "weights": f"sha256 {backbone['weights_sha256']}" if backbone["weights_sha256"] else "",
        "environment": f"Python {environment['python']} on {environment['machine']}, by {environment['user']}",
        "packages": ", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        **{f"  {stage} with": ", ".join(f"{name} {v}" for name, v in other.items())
           for stage, other in environment["stages_with_others"].items()},
        "prefect": "  ".join(part for part in (prefect["flow_run_id"], prefect["flow_run_url"]) if part),
    }  # fmt: skip


def _whole(document: Document) -> Iterator[str]:
    data = document["data"]
    if data.get("classes"):
        yield from ("", f"{'images':<24}{''.join(f'{split:>8}' for split in SPLITS)}")
        yield from (f"{str(row[0])[:23]:<24}{''.join(f'{n:>8,}' for n in row[1:])}" for row in class_rows(data))
        if len(data["classes"]) > CLASSES:
            yield f"... and {len(data['classes']) - CLASSES:,} more classes (--json has all)"
    yield from ("", f"{'stage':<12}{'':<8}{'run':<10}{'at':<22}{'commit':<14}{'seconds':>9}")
    for stage in document["stages"]:
        seconds = "" if stage["seconds"] is None else f"{stage['seconds']:.1f}"
        yield (
            f"{stage['stage']:<12}{stage['state']:<8}{stage['run_id'][:8]:<10}{moment(stage['at']):<22}"
            f"{stage['commit'][:12]:<14}{seconds:>9}"
        )
    for stage, values in document["parameters"].items():
        yield ""
        yield from (f"{f'{stage}.{key}':<34}{value}" for key, value in values.items())


def _history(history: Document) -> Iterator[str]:
    if not history["entries"]:
        yield f"{'ledger':<14}nothing was decided of it yet"
    for title, key in (("replaced", "replaced"), ("replaced by", "replaced_by")):
        entry = history[key]
        if entry:
            other = entry["previous"] if key == "replaced" else entry["version"]
            yield f"{title:<14}version {other}, {moment(entry['at'])}: {entry['why']}"
    for place, entry in enumerate(history["entries"]):
        yield f"{'' if place else 'ledger':<14}{decision(entry)}"


def decision(entry: Mapping[str, Any]) -> str:
    """One entry of the ledger."""
    over = f" over version {entry['previous']}" if entry["previous"] else ""
    said = DECISIONS.get(entry["what"], entry["what"])
    return f"{moment(entry['at'])}  version {entry['version']} {said}{over}, by {entry['by']}: {entry['why']}"


def _image(document: Document) -> Iterator[str]:
    yield name_of(document)
    yield from _pairs({"md5": ", ".join(document["image_ids"]), "path": ", ".join(document["paths"])})
    yield ""
    uses = [*document["versions"], *document["runs"]]
    had = {use["version"] for use in document["versions"] if use["split"] != "rejected"}
    yield f"{_count(len(had), 'version', 'versions')} of {document['asked_versions']} had it."
    if uses:
        yield from ("", f"{'model':<34}{'label':<16}{'made':<22}{'what it did'}")
    for use in uses:
        when = moment(use["at"])
        yield f"{version_text(use)[:33]:<34}{use['label'][:15]:<16}{when:<22}{role(use)}"
        if use["why"]:
            yield f"{'':<4}{use['why']}"
        if len(document["paths"]) > 1 or len(document["image_ids"]) > 1:
            yield f"{'':<4}as {use['path']}, md5 {use['image_id']}"
    if document["untold"]:
        yield from ("", f"nothing tells which images were in: version {', '.join(document['untold'])}")


def _data(document: Document) -> Iterator[str]:
    yield name_of(document)
    facts = {"is": ", ".join(document.get("places", []))}
    if "images" in document:
        facts["images"] = images_text(document)
    yield from _pairs(facts)
    uses = [*document["versions"], *document["runs"]]
    if not uses:
        yield from ("", "no model was made of it")
        return
    yield from ("", f"{'model':<34}{'made':<24}{'test':<12}")
    for use in uses:
        yield f"{version_text(use)[:33]:<34}{moment(use['at']):<24}{main_metric(use['test'])}"


_WRITERS = {"model": _model, "run": _run, "image": _image, "data": _data, "commit": _data}


def version_text(use: Mapping[str, Any]) -> str:
    """A version with its aliases, or the run of which none came."""
    if not use["version"]:
        return f"run {use['run_id'][:8]} (no version)"
    return f"version {use['version']}" + (f" ({', '.join(use['aliases'])})" if use["aliases"] else "")


def backbone_text(backbone: Mapping[str, str]) -> str:
    """Its name, and where its weights came from."""
    return f"{backbone['name']}, weights {backbone['weights']}" if backbone["name"] else ""


def images_text(data: Mapping[str, Any]) -> str:
    """How many images, by split."""
    if "images" not in data:
        return "nothing tells which they were"
    by_split = ", ".join(f"{number:,} {split}" for split, number in data["splits"].items())
    text = f"{data['images']:,}: {by_split}"
    if data.get("rejected"):
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in data["rejected_because"].items())
        text += f"; {_count(data['rejected'], 'file', 'files')} rejected ({reasons})"
    return text + (f"; {data['note']}" if data["note"] else "")


def code_text(code: Mapping[str, Any]) -> str:
    """The commits, and whether there were changes."""
    text = code["commit"] or "no commit"
    if code["changed"]:
        text += f", with changes that were not committed: {', '.join(code['changed'])}"
    elif code["changed"] is None and code["dirty"]:
        text += ", perhaps with changes that were not committed"
    return text + (f"; its dvc.lock is in {code['result']}" if code["result"] else "")


def main_metric(test: Mapping[str, float]) -> str:
    """The main figure and its interval, of whatever task."""
    for main in MAIN.values():
        if main.key in test:
            value, *ends = (main.text(test[key]) for key in main.keys if key in test)
            return f"{main.title} {value}" + (f" ({ends[0]} to {ends[1]})" if len(ends) == 2 else "")
    return ""


def figures(test: Mapping[str, float], task: str) -> str:
    """All figures of the test."""
    main = {key for known in MAIN.values() for key in known.keys} if task in MAIN else set()
    others = [f"{key.replace('_', ' ')} {value:.4g}" for key, value in test.items() if key not in main]
    return ", ".join([text for text in (main_metric(test), *others) if text])


def class_rows(data: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
    """Class and numbers, and all of them last."""
    rows = [(label, *(of[split] for split in SPLITS)) for label, of in list(data["classes"].items())[:CLASSES]]
    return [*rows, ("all images", *(data["splits"][split] for split in SPLITS))]


def role(use: Mapping[str, Any]) -> str:
    """What a model did with an image."""
    return ROLES[use["split"]] + (", then fitted to it too" if use["split"] == "val" and use["learned"] else "")


def moment(iso: str) -> str:
    """2026-11-26 19:38 UTC."""
    return f"{iso[:16].replace('T', ' ')} UTC"


def _pairs(facts: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{key:<14}{value}" for key, value in facts.items() if value)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
