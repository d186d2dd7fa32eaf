"""The audit as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.data.task import MAIN
from ..common.reporting.html import render
from .findings import Findings
from .outliers import neighbour
from .verdicts import Verdict

TEMPLATE = Path(__file__).parent / "templates" / "audit.html"

LISTED = 30
"""Rows of a table on the page; the files have all rows."""

_STATES = {"ok": "ok", "warn": "above the limit", "fail": "failed", "ignore": "ignored"}


@dataclass(frozen=True)
class Listing:
    """The first rows of a table.

    Attributes:
        words: how many of the first columns hold words; the others hold numbers.
        more: how many rows are left out.
    """

    head: list[str]
    rows: list[list[str]]
    words: int
    more: int


def audit_page(
    found: Findings, verdicts: Sequence[Verdict], plots: Mapping[str, str], origin: Mapping[str, str]
) -> str:
    """The text of the page.

    Args:
        plots: file name -> data URI.
        origin: what the data and features are, see `graft.tasks.common.reporting.origin`.
    """
    return render(
        TEMPLATE,
        title="Graft: data audit",
        found=found,
        main=MAIN[found.task],
        plots=plots,
        origin=origin,
        verdicts=[[one.name.replace("_", " "), one.text, one.bound, _STATES[one.state]] for one in verdicts],
        listings=_listings(found),
        nearest=_nearest(neighbour(found.pictures)),
    )


def _listings(found: Findings) -> dict[str, Listing]:
    """Name -> listing, of every question that found something."""
    makers = {
        "label_issues": _label_issues,
        "leaks": lambda found: _pairs(found.leaks),
        "conflicts": lambda found: _pairs(found.conflicts),
        "outliers": _outliers,
        "confusable": _confusable,
    }
    makers |= {"scores": _scores} if found.task == "anomaly" else {}
    return {name: make(found) for name, make in makers.items() if len(getattr(found, name))} | _curve(found)


def _label_issues(found: Findings) -> Listing:
    table = found.label_issues.assign(
        p_label=_percent(found.label_issues["p_label"]),
        p_suggested=_percent(found.label_issues["p_suggested"]),
        score=_decimals(found.label_issues["score"], 2),
    )
    columns = {"path": "path", "split": "split", "label": "label", "suggested": "suggested"}
    if found.task == "regression":
        return _listing(table, {**columns, "score": "robust standard deviations"}, 4)
    return _listing(table, {**columns, "p_label": "P(label)", "p_suggested": "P(suggested)"}, 4)


def _scores(found: Findings) -> Listing:
    table = found.scores.assign(
        score=_decimals(found.scores["score"], 3), deviation=_decimals(found.scores["deviation"], 1)
    )
    return _listing(table, {"path": "path", "split": "split", "score": "score", "deviation": "deviations"}, 2)


def _outliers(found: Findings) -> Listing:
    table = found.outliers.assign(score=_decimals(found.outliers["score"], 1))
    heads = {"path": "path", "split": "split", "label": "label", "score": "robust standard deviations"}
    return _listing(table, heads, 3)


def _confusable(found: Findings) -> Listing:
    table = found.confusable
    shares = [
        f"{share:.1%} ({low:.1%} to {high:.1%})"
        for share, low, high in table[["share", "low", "high"]].itertuples(index=False)
    ]
    heads = {"class": "class", "other_class": "other class", "images": "images", "share": "confused"}
    return _listing(table.assign(share=shares), heads, 2)


def _pairs(pairs: pd.DataFrame) -> Listing:
    table = pairs.assign(
        cosine_pixels=_decimals(pairs["cosine_pixels"], 3), cosine_features=_decimals(pairs["cosine_features"], 3)
    )
    heads = {"path": "path", "split": "split", "label": "label", "other_path": "other path", "other_split": "split"}
    heads |= {"other_label": "label", "cosine_pixels": "pixels", "cosine_features": "features"}
    return _listing(table, heads, 6)


def _curve(found: Findings) -> dict[str, Listing]:
    """Nothing without a curve."""
    sizes, main = found.curve.sizes, MAIN[found.task]
    if not len(sizes):
        return {}
    table = pd.DataFrame(
        {
            "share": _percent(sizes["share"]),
            "images": [f"{images:,.0f}" for images in sizes["images"]],
            "value": [
                f"{main.text(value)} ({main.text(low)} to {main.text(high)})"
                for value, low, high in sizes[["value", "low", "high"]].itertuples(index=False)
            ],
        }
    )
    heads = {"share": "share of the training images", "images": "images", "value": f"{main.title} on validation"}
    return {"curve": _listing(table, heads, 0)}


def _listing(table: pd.DataFrame, heads: Mapping[str, str], words: int) -> Listing:
    """The columns of `heads`, each under its heading."""
    rows = [[str(cell) for cell in row] for row in table[list(heads)].head(LISTED).itertuples(index=False)]
    return Listing(list(heads.values()), rows, words, max(0, len(table) - LISTED))


def _nearest(k: int) -> str:
    """nearest, 2nd nearest, ... 10th nearest."""
    return "nearest" if k == 1 else f"{k}{({2: 'nd', 3: 'rd'}).get(k, 'th')} nearest"


def _percent(values: pd.Series[Any]) -> list[str]:
    return [f"{value:.1%}" for value in values]


def _decimals(values: pd.Series[Any], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in values]
