"""An auditor's ten questions, answered from the record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graft.tasks.addresses import redacted
from graft.tasks.common.data.task import METRICS

from ..lineage.sections import code_text, moment
from ..registry.ledger import CHAMPIONS, Entry
from .facts import Facts, images_in_words

Link = tuple[str, str]
"""A text, and a file of the packet."""


@dataclass(frozen=True)
class Reply:
    """Attributes:
    links: the evidence that is in the packet.
    unknown: whether the record has no answer.
    """

    question: str
    text: str
    links: tuple[Link, ...]
    unknown: bool = False


def answers_of(facts: Facts) -> list[Reply]:
    """In the order of the questions."""
    questions = (_data, _number, _labels, _weights, _made, _compared, _why, _who, _seen, _again)
    return [_present(facts, ask(facts)) for ask in questions]


def _present(facts: Facts, reply: Reply) -> Reply:
    """The reply with links only to what is there."""
    kept = tuple(link for link in reply.links if "#" in link[1] or facts.has(link[1]))
    return Reply(reply.question, redacted(reply.text), kept, reply.unknown)


def _data(facts: Facts) -> Reply:
    data = facts.trace["data"]
    text = f"data/raw with DVC's hash {data['raw']}" if data["raw"] else "The images were not under DVC."
    source = f"; {facts.card.data_source}" if facts.card.data_source else ""
    links = (("description of the data set", "croissant.json"), ("every file with its md5", "data/raw.dir.json"))
    return Reply("Which data was it trained on?", f"{text}{source}", links, not data["raw"])


def _number(facts: Facts) -> Reply:
    data = facts.trace["data"]
    links = (("by class", "trace.html"), ("every image", "images.html"), ("the list", "data/manifest.parquet"))
    return Reply("How many images, and in which split?", images_in_words(data), links, "images" not in data)


def _labels(facts: Facts) -> Reply:
    people = sorted({answer.who or "nobody named" for answer in facts.answers})
    text = "The folders or the table of data/raw; nobody has changed a label in Graft."
    if people:
        images = len({answer.image_id for answer in facts.answers})
        text = f"{', '.join(people)}: {len(facts.answers):,} answers about {images:,} images; "
        text += "the other labels are those of data/raw."
    if facts.card.provider:
        text += f" The provider of the model is {facts.card.provider}."
    return Reply("Who labelled the images?", text, (("every answer", "labels.csv"), ("by image", "images.html")))


def _weights(facts: Facts) -> Reply:
    licence = facts.trace["backbone"]["licence"] or "not stated"
    parts = [f"{eye['backbone']} ({eye['weights']}), SHA-256 {eye['weights_sha256']}" for eye in facts.eyes]
    text = f"{'; '.join(parts)}. Licence of the weights: {licence}."
    return Reply("Which pre-trained weights, under which licence?", text, (("bill of materials", "bom.cdx.json"),))


def _made(facts: Facts) -> Reply:
    stages, code = facts.trace["stages"], facts.trace["code"]
    when = moment(stages[0]["at"]) if stages else "at a time that is not known"
    seconds = [stage["seconds"] for stage in stages if stage["seconds"] is not None and stage["state"] == "ran"]
    took = f", in {sum(seconds):,.0f} s" if seconds else ""
    environment = facts.trace["environment"]
    text = f"{when}{took}, by {environment['user']} on {environment['machine']}; commit {code_text(code)}."
    links = (("stages and parameters", "trace.html"), ("provenance", "provenance.intoto.json"))
    return Reply("When was it trained, and by which code?", text, links, not stages)


def _compared(facts: Facts) -> Reply:
    judged = next(
        (entry for entry in reversed(facts.entries) if entry.version == _number_of(facts) and entry.previous), None
    )
    links = (("the gate", "#gate"), ("the report", "report/index.html"))
    question = "What was it compared with?"
    if judged is None:
        return Reply(question, "With no other model: there was no champion before it.", links[1:])
    return Reply(question, f"Version {judged.previous}, on the same test images{_scores(judged)}.", links)


def _scores(entry: Entry) -> str:
    for metric in (metric for metrics in METRICS.values() for metric in metrics):
        ours, theirs = entry.metrics.get(metric.key), entry.metrics.get(f"champion_{metric.key}")
        if ours is not None and theirs is not None:
            return f": {metric.title} {metric.text(ours)} against {metric.text(theirs)}"
    return ""


def _why(facts: Facts) -> Reply:
    entry, links = _champion(facts), (("the ledger", "#ledger"), ("the gate", "#gate"))
    question = "Why was it promoted?"
    if entry is None:
        last = next((each for each in reversed(facts.entries) if each.version == _number_of(facts)), None)
        why = f" Last decision: {last.what.replace('_', ' ')}: {last.why}" if last else ""
        return Reply(question, f"It has not been promoted.{why}", links)
    return Reply(question, f"{entry.what.replace('_', ' ').capitalize()}: {entry.why or 'no reason was given'}", links)


def _who(facts: Facts) -> Reply:
    entry, links = _champion(facts), (("the ledger", "#ledger"),)
    question = "Who promoted it, and when?"
    if entry is None:
        return Reply(question, "Nobody.", links)
    return Reply(question, f"{entry.by}, {moment(entry.at)}.", links)


def _champion(facts: Facts) -> Entry | None:
    """The last decision that made it the champion."""
    mine = (entry for entry in reversed(facts.entries) if entry.version == _number_of(facts))
    return next((entry for entry in mine if entry.what in CHAMPIONS), None)


def _number_of(facts: Facts) -> str:
    return str(facts.trace["version"])


def _seen(facts: Facts) -> Reply:
    question, links = "Has it seen a certain image, and who labelled that?", (("search the images", "images.html"),)
    if facts.images is None:
        return Reply(question, "The list of images is lost.", (), unknown=True)
    text = f"Search {len(facts.images):,} images by path or md5: "
    text += "the page says whether the model was trained or tested on it."
    return Reply(question, text, links)


def _again(facts: Facts) -> Reply:
    lacks = [*_lacks(facts)]
    text = "Commit, images, parameters, weights and packages are on record. In the project, "
    text += "`graft verify PACKET --rebuild` makes it again from these, and says whether it is equal."
    if lacks:
        text = f"Perhaps not: {'; '.join(lacks)}."
    links = (
        ("provenance", "provenance.intoto.json"),
        ("DVC's record", "run/dvc.lock"),
        ("packages", "run/environment.txt"),
    )
    return Reply("Can it be made again?", text, links, bool(lacks))


def _lacks(facts: Facts) -> Iterator[str]:
    code, data = facts.trace["code"], facts.trace["data"]
    if code["commit"] in ("", "none"):
        yield "it was made without a commit"
    if code["changed"]:
        yield f"code was never committed: {', '.join(code['changed'])}"
    if not data["raw"].endswith(".dir"):
        yield "the images were not under DVC"
    if not facts.has("run/dvc.lock"):
        yield "the run recorded no dvc.lock"
