"""The description of a registered version: the text of the stage `register`, a model card, the table of the gate, and
what people wrote there by hand. Each writer replaces its own part only."""

from __future__ import annotations

GATE_HEAD = "\n\n### The gate\n\n"

CARD, CARD_END = "<!-- graft packet: model card -->", "<!-- end of the model card -->"

LONGEST = 5000
"""Characters of a description that every MLflow store takes."""


def gate_of(description: str) -> str:
    """The gate's sentence and table, in Markdown; empty if no gate has judged the version."""
    return without_card(description).partition(GATE_HEAD)[2].strip()


def with_gate(description: str, text: str) -> str:
    """The description with this text about the gate; what stands before it is kept."""
    return description.split(GATE_HEAD)[0] + GATE_HEAD + text


def without_card(description: str) -> str:
    before, mark, rest = description.partition(CARD)
    return before.rstrip() + rest.partition(CARD_END)[2] if mark else description


def with_card(description: str, parts: list[str], more: str) -> str:
    """The description with a model card before the table of the gate; all else is kept.

    Args:
        parts: of the card, the most important first; those that do not fit are left out.
        more: what to say then.
    """
    kept, mark, gate = without_card(description).partition(GATE_HEAD)
    room = LONGEST - len(kept) - len(mark) - len(gate) - len(CARD) - len(CARD_END) - len(more) - 8
    card, left_out = "", False
    for part in parts:
        left_out = left_out or len(card) + len(part) + 2 > room
        card += "" if left_out else f"{part}\n\n"
    if not card:
        return without_card(description)
    end = f"{more}\n\n" if left_out else ""
    before = f"{kept.rstrip()}\n\n" if kept.strip() else ""
    return f"{before}{CARD}\n\n{card}{end}{CARD_END}{mark}{gate}"
