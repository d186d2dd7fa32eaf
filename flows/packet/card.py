"""The model card: Hugging Face's form, with the headings of Annex IV of the EU AI Act (Regulation 2024/1689).

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from graft.tasks.common.data.manifest import SPLITS

from ..lineage.sections import code_text, moment
from .evidence import GATE, LABELS, LEDGER
from .facts import Document, Facts, class_table, images_in_words, measured
from .licences import spdx

NAME = "README.md"

PIPELINES = {"classification": "image-classification", "multilabel": "image-classification"}
"""Task -> Hugging Face's name of it; others have none."""

LISTED = 30
"""Classes in a table; the report has all."""

HEADINGS = (
    "1. General description",
    "2. Elements of the system and its development",
    "3. Monitoring, functioning and control",
    "4. Appropriateness of the performance metrics",
    "5. Risk management system",
    "6. Changes through the lifecycle",
    "7. Standards applied",
    "8. EU declaration of conformity",
    "9. Post-market monitoring",
)
"""The points of Annex IV, shortened."""


def card(facts: Facts) -> str:
    """The whole card, with its front matter."""
    head = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    return "\n\n".join([f"---\n{head}---", *parts(facts)]) + "\n"


def front_matter(facts: Facts) -> Document:
    """What Hugging Face reads; a licence that nobody stated is left out."""
    pipeline = PIPELINES.get(facts.task)
    return {
        **_licence(facts.card.license),
        **({"pipeline_tag": pipeline} if pipeline else {}),
        "library_name": "graft",
        "tags": ["graft", "transfer-learning", facts.task, *(eye["backbone"] for eye in facts.eyes)],
        "metrics": [metric.key for metric, _, _ in measured(facts)],
        "model-index": [{"name": facts.trace["name"], "results": [_result(facts, pipeline or facts.task)]}],
    }


def _licence(stated: str | None) -> dict[str, str]:
    if not stated:
        return {}
    known = spdx(stated).lower()
    return {"license": known} if known and " " not in known else {"license": "other", "license_name": stated}


def _result(facts: Facts, task: str) -> Document:
    raw = facts.trace["data"]["raw"]
    return {
        "task": {"type": task, "name": facts.task},
        "dataset": {
            "name": f"{facts.trace['name']} data",
            "type": "images",
            "split": "test",
            **({"revision": raw} if raw else {}),
        },
        "metrics": [_stated(metric.key, metric.title, value, ends) for metric, value, ends in measured(facts)],
    }


def _stated(key: str, title: str, value: float, ends: tuple[float, float] | None) -> Document:
    interval = f" (interval {ends[0]:.4g} to {ends[1]:.4g})" if ends else ""
    return {"type": key, "value": float(f"{value:.6g}"), "name": f"{title}{interval}"}


def parts(facts: Facts) -> list[str]:
    """The card without its front matter: a title, then a part for each point of Annex IV."""
    bodies = (_general, _elements, _control, _metrics, _risks, _changes, _standards, _declaration, _monitoring)
    texts = ["\n\n".join(body(facts)) for body in bodies]
    return [_title(facts), *(f"## {heading}\n\n{text}" for heading, text in zip(HEADINGS, texts, strict=True))]


def _title(facts: Facts) -> str:
    return (
        f"# {facts.title}\n\nThis card has the headings of Annex IV of the EU AI Act. It does not say whether the Act "
        "applies to the model, nor that it is complied with. What nobody has stated is named as missing."
    )


def _asked(facts: Facts, title: str, key: str) -> str:
    """What people state in params.yaml, or that it is missing."""
    text = getattr(facts.card, key)
    return f"**{title}.** {_escaped(text)}" if text else f"**{title}.** _Missing: `card.{key}` in params.yaml._"


def _general(facts: Facts) -> Iterator[str]:
    classes = facts.classes
    shown = ", ".join(_escaped(name) for name in classes[:LISTED])
    more = f" and {len(classes) - LISTED:,} more" if len(classes) > LISTED else ""
    answers = f" It answers with one of {len(classes):,} classes: {shown}{more}." if classes else ""
    yield (
        f"A model for {facts.task} of images: the pre-trained network {facts.trace['backbone']['name']} with a new "
        f"head ({facts.trace['candidate']}), registered on {moment(facts.trace['registered'])}.{answers}"
    )
    for title, key in (
        ("Provider", "provider"),
        ("Contact", "contact"),
        ("Licence", "license"),
        ("Intended use", "intended_use"),
        ("Out of scope", "out_of_scope"),
    ):
        yield _asked(facts, title, key)


def _elements(facts: Facts) -> Iterator[str]:
    trace = facts.trace
    backbone, data, environment = trace["backbone"], trace["data"], trace["environment"]
    weights = [f"`{eye['weights_sha256']}` ({eye['backbone']}, {eye['weights']})" for eye in facts.eyes]
    yield f"**Weights.** SHA-256 {', '.join(weights)}; licence: {backbone['licence'] or 'not stated'}."
    yield f"**Data.** {images_in_words(data)}; DVC's hash of data/raw is `{data['raw'] or 'not known'}`."
    yield from _class_counts(data)
    yield _asked(facts, "Where the images come from", "data_source")
    yield _asked(facts, "Licence of the images", "data_license")
    yield f"**Labels.** {labels_text(facts)}"
    yield f"**Code.** Commit {code_text(trace['code'])}."
    yield (
        f"**Environment.** Python {environment['python']} on {environment['machine']}, run by {environment['user']}; "
        f"{len(facts.packages):,} packages, see `bom.cdx.json`. All parameters are in `trace.html`."
    )


def _class_counts(data: Document) -> Iterator[str]:
    classes = list((data.get("classes") or {}).items())
    if classes:
        rows = [[_escaped(name), *(f"{of[split]:,}" for split in SPLITS)] for name, of in classes[:LISTED]]
        yield _table(["class", *SPLITS], rows)


def labels_text(facts: Facts) -> str:
    """Who gave the labels, in words."""
    people = sorted({answer.who or "nobody named" for answer in facts.answers})
    if not people:
        return "The labels come from the folders or the table of data/raw; nobody has changed one in Graft."
    images = len({answer.image_id for answer in facts.answers})
    return (
        f"{len(facts.answers):,} answers about {images:,} images by {', '.join(map(_escaped, people))}, each in "
        f"`{LABELS}` with its time and reason; the other labels come from the folders or the table of data/raw."
    )


def _control(facts: Facts) -> Iterator[str]:
    yield _asked(facts, "Limits", "limits")
    yield _asked(facts, "Human oversight", "oversight")
    predicts = facts.package["predicts"]
    yield f"**Answers.** For each image: {', '.join(f'`{name}`' for name in predicts)}."
    if facts.package.get("max_error") is not None:
        share = facts.package["max_error"]
        yield f"**Abstention.** The model abstains so that at most {share:.1%} of its answers are wrong."


def _metrics(facts: Facts) -> Iterator[str]:
    images = facts.trace["data"].get("splits", {}).get("test")
    on = f"{images:,} test images" if images is not None else "the test images"
    yield f"Measured on {on}, by which nothing was fitted or chosen in this run. The report explains the intervals."
    found = [
        [metric.title, f"{value:.4f}", f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""]
        for metric, value, ends in measured(facts)
    ]
    yield _table(["metric", "test", "interval"], found)
    yield from _by_class(facts)


def _by_class(facts: Facts) -> Iterator[str]:
    table = class_table(facts)
    if table is None or "recall" not in table:
        return
    rows = [_class_row(row) for row in table.head(LISTED).to_dict("records")]
    yield _table(["class", "test images", "recall", "interval"], rows)


def _class_row(row: dict[Any, Any]) -> list[str]:
    low, high = row.get("recall_low"), row.get("recall_high")
    interval = f"{low:.3f} to {high:.3f}" if low is not None and low == low else ""
    recall = f"{row['recall']:.3f}" if row["recall"] == row["recall"] else "unknown"
    return [_escaped(str(row["class"])), f"{row['images']:,.0f}", recall, interval]


def _risks(facts: Facts) -> Iterator[str]:
    yield _asked(facts, "Risk management", "risk_management")


def _changes(facts: Facts) -> Iterator[str]:
    if not facts.entries:
        yield f"The ledger has no decision about this version (`{LEDGER}`)."
    rows = [
        [
            moment(entry.at),
            f"version {entry.version}: {entry.what.replace('_', ' ')}",
            entry.previous,
            entry.by,
            entry.why,
        ]
        for entry in facts.entries
    ]
    if rows:
        yield _table(
            ["when", "decision", "champion before", "by", "why"], [[_escaped(cell) for cell in row] for row in rows]
        )
    yield f"The gate's checks are in `{GATE}`." if facts.gate else "No gate has judged this version."


def _standards(facts: Facts) -> Iterator[str]:
    yield _asked(facts, "Standards", "standards")


def _declaration(facts: Facts) -> Iterator[str]:
    yield _asked(facts, "Declaration", "declaration")


def _monitoring(facts: Facts) -> Iterator[str]:
    yield _asked(facts, "Monitoring", "monitoring")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """A text of a person, on one line, as plain text of Markdown."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_|<>[]#" else letter for letter in line)
