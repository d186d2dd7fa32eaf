"""The packet's own pages: the start page with the answers to an auditor's questions, the card, and the images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup

from graft.tasks.addresses import redacted
from graft.tasks.common.data.task import GOOD
from graft.tasks.common.reporting.html import render

from ..lineage.sections import ANSWERS, ROLES, moment
from ..lineage.uses import fitted_splits
from .answers import answers_of
from .bom import NAME as BOM
from .bom import TASKS
from .card import NAME as CARD
from .croissant import NAME as CROISSANT
from .events import NAME as EVENTS
from .evidence import GATE, LABELS, LEDGER, LISTING, MANIFEST, MODEL, REJECTED
from .facts import Facts, measured
from .statement import NAME as STATEMENT

INDEX, CARD_PAGE, IMAGES = "index.html", "card.html", "images.html"

TEMPLATES = Path(__file__).with_name("templates")

EMBEDDED = 200_000
"""Images on the page; of more, the list alone has all."""

MEANINGS = {
    CARD_PAGE: "the model card: what the model is for, its limits, data, test and decisions",
    CARD: "the same in Markdown, in Hugging Face's form",
    "report/index.html": "the test report, with pictures",
    "trace.html": "what the model was made from: images, code, weights, stages, parameters, environment",
    IMAGES: "every image with its split and label, to search",
    BOM: "bill of materials: CycloneDX 1.6",
    STATEMENT: "where the files of the model come from: in-toto, SLSA provenance",
    EVENTS: "lineage of every stage: OpenLineage",
    CROISSANT: "the data set: Croissant 1.0",
    "trace.json": "the same as trace.html, for programs",
    MANIFEST: "the images that were used, one row each",
    REJECTED: "the files that were rejected, and why",
    LISTING: "every file of data/raw with its md5, as DVC lists it",
    LABELS: "who labelled which image, when and why",
    GATE: "the checks of the gate",
    LEDGER: "the decisions about the version",
    MODEL: "every file of the model with its SHA-256; the SHA-256 of this list identifies the model",
    "run/dvc.lock": "DVC's record of the stages",
    "run/environment.txt": "all packages that were installed",
}
"""File -> what it is, in the order of the start page."""


def write_pages(facts: Facts, *, signed: bool) -> None:
    """Writes the three pages; what they link is there already."""
    facts.write(CARD_PAGE, card_page(facts))
    facts.write(IMAGES, images_page(facts))
    facts.write(INDEX, index_page(facts, signed=signed))


def index_page(facts: Facts, *, signed: bool) -> str:
    trace = facts.trace
    return render(
        TEMPLATES / INDEX,
        title=facts.title,
        name=facts.name,
        task=TASKS[facts.task],
        registered=moment(trace["registered"]),
        signed=", and who signed it" if signed else "; the packet is not signed",
        answers=answers_of(facts),
        metrics=[*_metrics(facts)],
        gate=_html(facts.gate) if facts.gate else Markup("<p>No gate has judged this version.</p>"),
        entries=[*_entries(facts)],
        missing=[*sorted(facts.missing.items()), *_not_stated(facts)],
        documents=[*_documents(facts)],
        digest=facts.digest,
    )


def _metrics(facts: Facts) -> Iterator[tuple[str, str, str]]:
    for metric, value, ends in measured(facts):
        yield metric.title, metric.text(value), f"{metric.text(ends[0])} to {metric.text(ends[1])}" if ends else ""


def _entries(facts: Facts) -> Iterator[list[str]]:
    for entry in facts.entries:
        decision = f"version {entry.version}: {entry.what.replace('_', ' ')}"
        before = f"version {entry.previous}" if entry.previous else "none"
        yield [moment(entry.at), decision, before, entry.by, redacted(entry.why)]


def _not_stated(facts: Facts) -> Iterator[tuple[str, str]]:
    """The keys of the card that are null."""
    names = [f"`{name}`" for name, text in facts.card.model_dump().items() if not text]
    if names:
        yield CARD_PAGE, f"nobody has stated {', '.join(names)}: they belong under `card` in params.yaml"


def _documents(facts: Facts) -> Iterator[tuple[str, str, str]]:
    for name, meaning in MEANINGS.items():
        if facts.has(name):
            yield name, meaning, _size((facts.folder / name).stat().st_size)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3)):,} kB"


def card_page(facts: Facts) -> str:
    text = (facts.folder / CARD).read_text(encoding="utf-8")
    body = _html(text.split("\n---\n", 1)[1])
    return render(TEMPLATES / CARD_PAGE, title=f"Model card: {facts.title}", body=body)


def _html(markdown: str) -> Markup:
    """Markdown as HTML. HTML inside of it, and links that run scripts, stay text."""
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return Markup(made.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>"))


def images_page(facts: Facts) -> str:
    """Which images the model has seen, and in which role."""
    rows = [*_rows(facts)]
    content = {"roles": _roles(facts), "rows": rows[:EMBEDDED]}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    left = f"; the first {EMBEDDED:,} are on this page, all in {MANIFEST}" if len(rows) > EMBEDDED else ""
    return render(
        TEMPLATES / IMAGES, title=f"Images: {facts.title}", total=f"{len(rows):,}{left}", data=Markup(data)
    )  # fmt: skip


def _roles(facts: Facts) -> dict[str, str]:
    """Split -> what the model did with an image of it."""
    refitted = ", then fitted to it too" if "val" in fitted_splits(facts.version, facts.execution) else ""
    roles = {**ROLES, "val": ROLES["val"] + refitted}
    return {**roles, "train": f"{roles['train']} (only if {GOOD})"} if facts.task == "anomaly" else roles


def _rows(facts: Facts) -> Iterator[list[str]]:
    """Path, split, label, md5, reason of a rejection, labels that people gave."""
    given = _given(facts)
    if facts.images is not None:
        for row in facts.images[["path", "split", "label", "image_id"]].astype("string").itertuples(index=False):
            yield [row.path, row.split, _text(row.label), row.image_id, "", given.get(row.image_id, "")]
    file = facts.folder / REJECTED
    if file.is_file():
        for row in pd.read_parquet(file).astype("string").itertuples(index=False):
            yield [row.path, "rejected", _text(row.label), "", _text(row.reason), ""]


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _given(facts: Facts) -> dict[str, str]:
    """Image id -> the labels that people gave it."""
    found: dict[str, list[str]] = defaultdict(list)
    for answer in facts.answers:
        label = ANSWERS.get(answer.label, answer.label)
        found[answer.image_id].append(f"{label} by {answer.who or 'nobody named'}, {moment(answer.when)}")
    return {image_id: "; ".join(texts) for image_id, texts in found.items()}
