"""The answer of `graft trace` as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from tasks.common.core.files import whole_file
from tasks.common.data.manifest import SPLITS
from tasks.common.reporting.html import page, table

from .trace_text import (
    CLASSES,
    DECISIONS,
    backbone_text,
    class_rows,
    code_text,
    figures,
    images_text,
    main_metric,
    moment,
    name_of,
    role,
    version_text,
)

Document = dict[str, Any]

STYLE = """<style>
body { max-width: 66rem; } td { overflow-wrap: break-word; } table { font-size: .9rem; }
.chain { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1.5rem 0; padding: 0; list-style: none; }
.chain li { position: relative; flex: 1 1 6rem; padding: .6rem .7rem; border: 1px solid #ccc; border-radius: .4rem; }
.chain li + li::before { content: "+"; position: absolute; left: -1.3rem; top: 50%; margin-top: -.8em; color: #888; }
.chain li.next::before { content: "→" !important; }
.chain b { display: block; font-size: .75rem; font-weight: 600; color: #777; text-transform: uppercase; }
.chain .here { border: 2px solid #0a5; } .chain span { overflow-wrap: anywhere; font-size: .9rem; }
table.facts th { text-align: left; vertical-align: top; font-weight: 600; white-space: nowrap; }
table.facts { width: 100%; } th { text-align: left; }
code { font-size: .85em; overflow-wrap: anywhere; } .note { color: #a40; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; } footer { margin: 3rem 0; color: #777; }
</style>"""


def write_page(document: Document, file: Path) -> None:
    """The page, to a file."""
    with whole_file(file) as part:
        part.write_text(lineage_page(document, datetime.now(UTC).isoformat()), encoding="utf-8")


def lineage_page(document: Document, made: str) -> str:
    """The page's text.

    Args:
        made: when, for the last line.
    """
    title = name_of(document)
    return page(
        f"Graft: {title}",
        [
            STYLE,
            f"<h1>{escape(title)}</h1>",
            *_PARTS[document["kind"]](document),
            f"<footer>graft trace {escape(document['asked_for'])} · {escape(moment(made))}</footer>",
        ],
    )


def _model(document: Document) -> list[str]:
    facts = {
        "registered": escape(moment(document["registered"])),
        "test": escape(figures(document["test"], document["task"])),
        "candidate": escape(document["candidate"]),
    }
    return [_chain(document), _facts(facts | _common(document)), *_history(document["history"]), *_whole(document)]


def _run(document: Document) -> list[str]:
    facts = {"started": escape(moment(document["started"])), "status": escape(document["status"].lower())}
    made = [version_text(use) for use in document["versions"]]
    facts["made"] = escape(", ".join(made) or "no version")
    return [_chain(document), _facts(facts | _common(document)), *_whole(document)]


def _chain(document: Document) -> str:
    """What it was made of, it, and what came after, from left to right."""
    links = [
        ("data", f"{document['data'].get('images', '?')} images", _short(document["data"]["raw"])),
        ("code", _short(document["code"]["commit"]), "with changes" if document["code"]["changed"] else ""),
        ("backbone", document["backbone"]["name"], _short(document["backbone"]["weights_sha256"])),
        ("run", _short(document["parent_run_id"]), document["run_name"]),
    ]
    if document["kind"] == "model":
        links.append(("version", document["version"], ", ".join(document["aliases"]) or "no alias"))
        after = document["history"]["replaced_by"]
        links += [("replaced by", f"version {after['version']}", moment(after["at"]))] if after else []
    here = "version" if document["kind"] == "model" else "run"
    return f'<ol class="chain">{"".join(_link(*link, here) for link in links)}</ol>'


def _link(title: str, first: str, second: str, here: str) -> str:
    """A box; an arrow leads to what came of those before it."""
    marks = [*(["next"] if title in ("run", "version", "replaced by") else []), *(["here"] if title == here else [])]
    mark = f' class="{" ".join(marks)}"' if marks else ""
    return f"<li{mark}><b>{title}</b><span>{escape(str(first))}<br>{escape(second)}</span></li>"


def _common(document: Document) -> dict[str, str]:
    """HTML of what a version and a run have."""
    backbone, environment, prefect = document["backbone"], document["environment"], document["prefect"]
    others = [
        f"{stage}: {name} {version}"
        for stage, other in environment["stages_with_others"].items()
        for name, version in other.items()
    ]
    url = prefect["flow_run_url"]
    flow = (
        f'<a href="{escape(url)}">{escape(prefect["flow_run_id"])}</a>'
        if _is_web(url)
        else escape(prefect["flow_run_id"])
    )
    return {
        "run": f"{_code(document['parent_run_id'])} {escape(document['run_name'])}",
        "data": _code(document["data"]["raw"]),
        "images": _noted(document["data"]),
        "image list": _code(document["data"]["manifest"]),
        "code": escape(code_text(document["code"])),
        "backbone": escape(backbone_text(backbone)),
        "its weights": f"SHA-256 {_code(backbone['weights_sha256'])}" if backbone["weights_sha256"] else "",
        "features": _code(backbone["fingerprint"]),
        "environment": escape(f"Python {environment['python']} on {environment['machine']}, by {environment['user']}"),
        "packages": escape(", ".join(f"{name} {version}" for name, version in environment["packages"].items())),
        "packages of reused stages": escape(", ".join(others)),
        "Prefect": flow,
    }


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _noted(data: Mapping[str, Any]) -> str:
    mark = "" if data.get("exact", False) else ' class="note"'
    return f"<span{mark}>{escape(images_text(data))}</span>"


def _history(history: Document) -> list[str]:
    if not history["entries"]:
        return ["<h2>Decisions</h2>", "<p>Nothing was decided of it yet.</p>"]
    rows = [
        [_when(entry["at"]), _whole_words(f"version {entry['version']} {DECISIONS.get(entry['what'], entry['what'])}"),
         _whole_words(f"version {entry['previous']}") if entry["previous"] else "", entry["by"], entry["why"]]
        for entry in history["entries"]
    ]  # fmt: skip
    return ["<h2>Decisions</h2>", table(["when", "what", "over", "by", "why"], rows, words=5)]


def _whole(document: Document) -> list[str]:
    data = document["data"]
    parts = []
    if data.get("classes"):
        rows = [[str(cell) if n == 0 else f"{cell:,}" for n, cell in enumerate(row)] for row in class_rows(data)]
        more = len(data["classes"]) - CLASSES
        parts += ["<h2>Images</h2>", table(["class", *SPLITS], rows)]
        parts += [f"<p>... and {more:,} more classes.</p>"] if more > 0 else []
    stages = [
        [row["stage"], row["state"], _short(row["run_id"]), _when(row["at"]), row["commit"][:12],
         "" if row["seconds"] is None else f"{row['seconds']:.1f}"]
        for row in document["stages"]
    ]  # fmt: skip
    parts += ["<h2>Stages</h2>", table(["stage", "", "MLflow run", "at", "commit", "seconds"], stages, words=5)]
    parts += ["<h2>Parameters</h2>"] if document["parameters"] else []
    for stage, values in document["parameters"].items():
        rows = [[key, value] for key, value in values.items()]
        parts.append(f"<details><summary>{escape(stage)}</summary>{table(['parameter', 'value'], rows, 2)}</details>")
    return parts


def _image(document: Document) -> list[str]:
    facts = {
        "md5": "<br>".join(_code(each) for each in document["image_ids"]),
        "path": "<br>".join(escape(path) for path in document["paths"]),
    }
    had = {use["version"] for use in document["versions"] if use["split"] != "rejected"}
    untold = document["untold"]
    return [
        _facts(facts),
        f"<p>{len(had):,} of {document['asked_versions']:,} registered versions had it.</p>",
        _uses_of_image(document),
        f'<p class="note">Nothing tells which images were in version {escape(", ".join(untold))}.</p>'
        if untold
        else "",
    ]


def _uses_of_image(document: Document) -> str:
    """A row a use; of columns that would say the same in each row, or nothing, none."""
    uses = _all(document)
    columns: dict[str, list[str]] = {
        "model": [_whole_words(version_text(use)) for use in uses],
        "what it did": [role(use) for use in uses],
        "label then": [use["label"] for use in uses],
        **({"path then": [use["path"] for use in uses]} if len(document["paths"]) > 1 else {}),
        **({"md5 then": [_short(use["image_id"]) for use in uses]} if len(document["image_ids"]) > 1 else {}),
        **({"why": [use["why"] for use in uses]} if any(use["why"] for use in uses) else {}),
        "made": [_when(use["at"]) for use in uses],
        "test": [main_metric(use["test"]) for use in uses],
    }
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return table(list(columns), rows, words=len(columns)) if rows else ""


def _data(document: Document) -> list[str]:
    facts = {"is": escape(", ".join(document.get("places", [])))}
    if "images" in document:
        facts["images"] = _noted(document)
    rows = [
        [
            _whole_words(version_text(use)),
            _short(use["run_id"]),
            _when(use["at"]),
            use["commit"][:12],
            main_metric(use["test"]),
        ]
        for use in _all(document)
    ]
    head = ["model", "MLflow run", "made", "commit", "test"]
    return [_facts(facts), table(head, rows, words=5) if rows else "<p>No model was made of it.</p>"]


_PARTS = {"model": _model, "run": _run, "image": _image, "data": _data, "commit": _data}


def _all(document: Document) -> Sequence[Mapping[str, Any]]:
    return [*document["versions"], *document["runs"]]


def _facts(facts: Mapping[str, str]) -> str:
    """A table of words and their HTML; what is empty is left out."""
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{value}</td></tr>" for key, value in facts.items() if value)
    return f'<table class="facts">{rows}</table>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>" if text else ""


def _whole_words(text: str) -> str:
    """Without a place to break the line."""
    return text.replace(" ", "\u00a0")


def _when(iso: str) -> str:
    return _whole_words(moment(iso))


def _short(text: str) -> str:
    return text[:12]
