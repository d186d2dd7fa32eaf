"""The answer of `graft trace` as sections, each fact once: what the terminal prints and what the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graft.tasks.common.data.manifest import SPLITS
from graft.tasks.common.data.task import METRICS, main_in

Document = dict[str, Any]

CLASSES = 30
"""Rows of the table of classes; further classes are only counted."""

ROLES = {
    "train": "trained on it",
    "val": "validated on it",
    "test": "tested on it",
    "rejected": "rejected it",
    "seen": "trained on it, or keeps it as a sample",
    "held out": "held it out: validated or tested on it",
}
"""Split -> what a model did with an image."""

ANSWERS = {"!discard": "discarded", "!unsure": "not sure", "!undo": "taken back"}
"""Special label in data/labels.csv -> in words."""

DECISIONS = {
    "first": "first champion",
    "promoted": "promoted",
    "waits": "passed the gate",
    "undecided": "undecided: too few test images",
    "refused": "refused",
    "rolled_back": "rolled back to",
    "by_hand": "made champion by hand",
}


@dataclass(frozen=True)
class Cell:
    """A value.

    Attributes:
        kind: how the page sets it; numbers stand at the right.
        link: a web address; empty for none.
    """

    text: str
    kind: Literal["text", "code", "number", "name", "note"] = "text"
    link: str = ""


@dataclass(frozen=True)
class Section:
    """A table.

    Attributes:
        title: empty for the first one.
        head: the names of the columns; empty where each row is a name and its value.
        note: a sentence above the rows, or instead of them.
        folded: whether the page shows the rows only on demand.
    """

    title: str
    rows: tuple[tuple[Cell, ...], ...]
    head: tuple[str, ...] = ()
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Link:
    """A part of the chain from the data to the model.

    Attributes:
        derived: whether it follows from those before it, rather than being one more ingredient.
        here: whether the answer is about it.
    """

    title: str
    text: str
    more: str
    derived: bool = False
    here: bool = False


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


def sections(document: Document) -> list[Section]:
    """The whole answer."""
    return list(_SECTIONS[document["kind"]](document))


def chain(document: Document) -> list[Link]:
    """The way from the data to a version or a run; empty for other answers."""
    if document["kind"] not in ("model", "run"):
        return []
    data, code, backbone = document["data"], document["code"], document["backbone"]
    images = f"{data['images']:,} images" if "images" in data else "unknown images"
    links = [
        Link("data", images, data["raw"][:12]),
        Link("code", code["commit"][:12] or "no commit", "uncommitted changes" if code["changed"] else ""),
        Link("backbone", backbone["name"], backbone["weights_sha256"][:12]),
        Link("run", document["parent_run_id"][:8], document["run_name"], True, document["kind"] == "run"),
    ]
    if document["kind"] == "model":
        aliases = ", ".join(document["aliases"]) or "no alias"
        links.append(Link("version", document["version"], aliases, True, True))
        after = document["history"]["replaced_by"]
        links += [Link("replaced by", f"version {after['version']}", moment(after["at"]), True)] if after else []
    return links


# A version, or a run


def _model(document: Document) -> Iterator[Section]:
    history = document["history"]
    yield _facts({
        "registered": Cell(moment(document["registered"])),
        "test": Cell(metrics_text(document["test"], document["task"])),
        "candidate": Cell(document["candidate"]),
        **_composition(document),
        "replaced": Cell(_other(history["replaced"], "previous")),
        "replaced by": Cell(_other(history["replaced_by"], "version")),
    })  # fmt: skip
    entries = history["entries"]
    columns = {
        "when": [Cell(moment(entry["at"]), "name") for entry in entries],
        "decision": [Cell(f"version {entry['version']} {_decision(entry)}") for entry in entries],
        "over": [Cell(f"version {entry['previous']}" if entry["previous"] else "", "name") for entry in entries],
        "by": [Cell(entry["by"]) for entry in entries],
        "why": [Cell(entry["why"]) for entry in entries],
    }
    yield _table("Decisions", columns, note="" if entries else "None yet.")
    yield from _tables(document)


def _run(document: Document) -> Iterator[Section]:
    yield _facts({
        "started": Cell(moment(document["started"])),
        "status": Cell(document["status"].lower()),
        "made": Cell(", ".join(version_text(use) for use in document["versions"]) or "no version"),
        **_composition(document),
    })  # fmt: skip
    yield from _tables(document)


def _composition(document: Document) -> dict[str, Cell]:
    """The facts that a version and a run have in common."""
    data, backbone = document["data"], document["backbone"]
    environment, prefect = document["environment"], document["prefect"]
    weights, url = backbone["weights_sha256"], prefect["flow_run_url"]
    others = environment["stages_with_others"].items()
    return {
        "run": Cell(f"{document['parent_run_id']} {document['run_name']}"),
        "data": Cell(data["raw"], "code"),
        "images": Cell(images_text(data), "text" if data.get("exact", False) else "note"),
        "image list": Cell(data["manifest"], "code"),
        "code": Cell(code_text(document["code"])),
        "backbone": Cell(f"{backbone['name']}, weights {backbone['weights']}" if backbone["name"] else ""),
        "weights": Cell(f"SHA-256 {weights}" if weights else "", "code"),
        "licence": Cell(backbone["licence"]),
        "features": Cell(backbone["fingerprint"], "code"),
        "environment": Cell(f"Python {environment['python']} on {environment['machine']}, by {environment['user']}"),
        "packages": Cell(_packages(environment["packages"])),
        **{f"{stage} used": Cell(_packages(packages)) for stage, packages in others},
        "Prefect": Cell(prefect["flow_run_id"], "code", url if url.startswith(("http://", "https://")) else ""),
    }


def _packages(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _decision(entry: Mapping[str, Any]) -> str:
    return DECISIONS.get(entry["what"], entry["what"])


def _other(entry: Mapping[str, Any] | None, key: str) -> str:
    return f"version {entry[key]}, {moment(entry['at'])}" if entry else ""


def _tables(document: Document) -> Iterator[Section]:
    data, stages = document["data"], document["stages"]
    if data.get("classes"):
        yield _classes(data)
    columns = {
        "stage": [Cell(row["stage"]) for row in stages],
        "state": [Cell(row["state"]) for row in stages],
        "run": [Cell(row["run_id"][:8], "code") for row in stages],
        "at": [Cell(moment(row["at"]), "name") for row in stages],
        "commit": [Cell(row["commit"][:12], "code") for row in stages],
        "seconds": [Cell("" if row["seconds"] is None else f"{row['seconds']:.1f}", "number") for row in stages],
    }
    yield _table("Stages", columns)
    for stage, values in document["parameters"].items():
        rows = tuple((Cell(key), Cell(value)) for key, value in values.items())
        yield Section(f"Parameters of {stage}", rows, folded=True)


def _classes(data: Mapping[str, Any]) -> Section:
    """Class and number of images by split; the sum last."""
    counts = [*list(data["classes"].items())[:CLASSES], ("all images", data["splits"])]
    columns = {
        "class": [Cell(name) for name, _ in counts],
        **{split: [Cell(f"{of[split]:,}", "number") for _, of in counts] for split in SPLITS},
    }
    more = len(data["classes"]) - CLASSES
    return _table("Images", columns, f"{more:,} more classes are only in the output of --json." if more > 0 else "")


# An image, data, or a commit


def _image(document: Document) -> Iterator[Section]:
    yield _facts({
        "md5": Cell(", ".join(document["image_ids"]), "code"),
        "path": Cell(", ".join(document["paths"])),
    })  # fmt: skip
    uses = [*document["versions"], *document["runs"]]
    had = len({use["version"] for use in document["versions"] if use["split"] != "rejected"})
    columns = {
        "model": [Cell(version_text(use), "name") for use in uses],
        "role": [Cell(role(use)) for use in uses],
        "label": [Cell(use["label"]) for use in uses],
        "path": [Cell(use["path"] if len(document["paths"]) > 1 else "") for use in uses],
        "md5": [Cell(use["image_id"][:12] if len(document["image_ids"]) > 1 else "", "code") for use in uses],
        "made": [Cell(moment(use["at"]), "name") for use in uses],
        "test": [Cell(main_metric(use["test"])) for use in uses],
        "why": [Cell(use["why"]) for use in uses],
    }
    yield _table("Models", columns, f"{_count(had, 'version', 'versions')} of {document['asked_versions']:,} had it.")
    answers = document["answers"]
    given = {
        "when": [Cell(moment(answer["when"]), "name") for answer in answers],
        "who": [Cell(answer["who"]) for answer in answers],
        "label": [Cell(ANSWERS.get(answer["label"], answer["label"])) for answer in answers],
        "replaced": [Cell(answer["replaced"]) for answer in answers],
        "why": [Cell(answer["why"]) for answer in answers],
    }
    if answers:
        yield _table("Labels", given)
    if document["untold"]:
        yield Section("Unknown", (), note=f"The images of version {', '.join(document['untold'])} are not known.")


def _data(document: Document) -> Iterator[Section]:
    images = images_text(document) if "images" in document else ""
    yield _facts({
        "found as": Cell(", ".join(document.get("places", []))),
        "images": Cell(images, "text" if document.get("exact", True) else "note"),
    })  # fmt: skip
    uses = [*document["versions"], *document["runs"]]
    columns = {
        "model": [Cell(version_text(use), "name") for use in uses],
        "run": [Cell(use["run_id"][:8], "code") for use in uses],
        "made": [Cell(moment(use["at"]), "name") for use in uses],
        "commit": [Cell(use["commit"][:12], "code") for use in uses],
        "test": [Cell(main_metric(use["test"])) for use in uses],
    }
    yield _table("Models", columns, "" if uses else "No model was made from it.")


_SECTIONS = {"model": _model, "run": _run, "image": _image, "data": _data, "commit": _data}


# Values as text


def version_text(use: Mapping[str, Any]) -> str:
    """A version with its aliases, or a run that made none."""
    if not use["version"]:
        return f"run {use['run_id'][:8]} (no version)"
    return f"version {use['version']}" + (f" ({', '.join(use['aliases'])})" if use["aliases"] else "")


def images_text(data: Mapping[str, Any]) -> str:
    """The number of images by split."""
    if "images" not in data:
        return "not known"
    by_split = ", ".join(f"{number:,} {split}" for split, number in data["splits"].items())
    text = f"{data['images']:,}: {by_split}"
    if data.get("rejected"):
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in data["rejected_because"].items())
        text += f"; {_count(data['rejected'], 'file', 'files')} rejected ({reasons})"
    return text + (f"; {data['note']}" if data["note"] else "")


def code_text(code: Mapping[str, Any]) -> str:
    """The commits, and whether there were uncommitted changes."""
    text = code["commit"] or "no commit"
    if code["changed"]:
        text += f", with uncommitted changes: {', '.join(code['changed'])}"
    elif code["changed"] is None and code["dirty"]:
        text += ", perhaps with uncommitted changes"
    return text + (f"; its dvc.lock is in {code['result']}" if code["result"] else "")


def main_metric(test: Mapping[str, float]) -> str:
    """The main metric of any task, with its interval."""
    for main in (metrics for of_task in METRICS.values() for metrics in of_task):
        if main.key in test:
            value, *ends = (main.text(test[key]) for key in main.keys if key in test)
            return f"{main.title} {value}" + (f" ({ends[0]} to {ends[1]})" if len(ends) == 2 else "")
    return ""


def metrics_text(test: Mapping[str, float], task: str) -> str:
    """All test metrics, the main one first."""
    main = {*main_in({"task": task, **test}).keys} if task in METRICS else set()
    others = [f"{key.replace('_', ' ')} {value:.4g}" for key, value in test.items() if key not in main]
    return ", ".join([text for text in (main_metric(test), *others) if text])


def role(use: Mapping[str, Any]) -> str:
    """What a model did with an image."""
    return ROLES[use["split"]] + (", then fitted to it too" if use["split"] == "val" and use["learned"] else "")


def moment(iso: str) -> str:
    """2026-11-26 19:38 UTC."""
    return f"{iso[:16].replace('T', ' ')} UTC"


def _facts(facts: Mapping[str, Cell]) -> Section:
    """Empty values are left out."""
    return Section("", tuple((Cell(name), value) for name, value in facts.items() if value.text.strip()))


def _table(title: str, columns: Mapping[str, Sequence[Cell]], note: str = "") -> Section:
    """Columns without any value are left out."""
    kept = {name: cells for name, cells in columns.items() if any(cell.text for cell in cells)}
    return Section(title, tuple(zip(*kept.values(), strict=True)), tuple(kept), note)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
