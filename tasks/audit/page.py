"""The audit as one HTML page that needs no network; its pictures lie beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

from ..common.data.task import MAIN
from ..common.reporting.html import page, table
from .findings import Findings
from .outliers import neighbour
from .verdicts import Verdict

LISTED = 30
"""Rows of a table on the page; the files hold all."""

_STATES = {"ok": "ok", "warn": "look at it", "fail": "too many", "ignore": "ignored"}


def audit_page(found: Findings, verdicts: Sequence[Verdict], pictures: set[str]) -> str:
    """The page's text.

    Args:
        pictures: the files beside it.
    """
    sections = [
        _suspects(found),
        _leaks(found),
        *([_conflicts(found)] if found.classes else []),
        _outliers(found),
        *([_confusable(found)] if found.classes else []),
        _map(found),
        _curve(found),
    ]
    return page(
        "Graft: audit",
        [
            "<h1>What the features say about the data</h1>",
            table(
                ["question", "found", "limit", "verdict"],
                [[one.name, one.text, one.bound, _STATES[one.state]] for one in verdicts],
                words=2,
            ),
            *(part for section in sections for part in _shown(section, pictures)),
        ],
    )


Section = tuple[str, str, str, str]
"""Title, text, table and picture; the latter two may be empty."""


def _shown(section: Section, pictures: set[str]) -> list[str]:
    title, text, rows, picture = section
    image = [f'<img src="{picture}" alt="{title}">'] if picture in pictures else []
    return [f"<h2>{title}</h2>", f"<p>{text}</p>", *image, rows]


def _suspects(found: Findings) -> Section:
    how = "robust residuals" if found.task == "regression" else "confident learning, Northcutt et al. 2021"
    text = (
        f"Each training and validation image was judged by models that had not seen it ({how}){_but(found.unjudged)}. "
    )
    if found.classes:
        what = "marks" if found.task == "multilabel" else "labels"
        text += (
            f"If all {found.judged:,} {what} were right and as hard to tell as they seem, about "
            f"{found.by_chance:,.0f} would be suspected too. "
        )
    if not len(found.suspects):
        return "Suspected labels", text + "No label is suspected.", "", ""
    if found.task == "multilabel":
        text += f"{_count(found.doubted, 'mark', 'marks')} of {found.judged:,} on "
        text += f"{_count(len(found.suspects), 'image is', 'images are')} suspected, the worst first"
    else:
        text += f"{_count(found.doubted, 'label is', 'labels are')} suspected, the worst first"
    rows = found.suspects.assign(p_label=_percent(found.suspects["p_label"]))
    rows = rows.assign(p_suggested=_percent(rows["p_suggested"]), score=_figures(rows["score"], 2))
    columns = ["path", "split", "label", "suggested"]
    columns += ["score"] if found.task == "regression" else ["p_label", "p_suggested"]
    heads = {"p_label": "its probability", "p_suggested": "of the suggestion", "score": "robust standard deviations"}
    return "Suspected labels", text + _file("suspects"), _rows(rows, columns, heads, 4), "suspects.png"


def _but(unjudged: int) -> str:
    if not unjudged:
        return ""
    images = "1 image that" if unjudged == 1 else f"{unjudged:,} images that"
    return f", but {images} could not be held out: of a class with a single group, nothing could be learned without it"


def _leaks(found: Findings) -> Section:
    title, test = "The same picture in two splits", found.leaked["test"]
    if not any(found.leaked.values()):
        return title, "No image of validation or test is among those that are learned from.", "", ""
    text = (
        f"{_count(test, 'test image is', 'test images are')} also among the training or validation images, and "
        f"{_count(found.leaked['val'], 'validation image', 'validation images')} among the training images. The report "
        "gives the test's figures with and without them. They are in "
        '<a href="leaked.parquet">leaked.parquet</a>. The pairs, the most alike first'
    )
    return title, text + _file("leaks"), _pairs(found.leaks), "leaks.png"


def _conflicts(found: Findings) -> Section:
    title = "The same picture under two labels"
    if not len(found.conflicts):
        return title, "There is none among the training and validation images.", "", ""
    text = f"{_count(len(found.conflicts), 'pair', 'pairs')} of training and validation images. One label is wrong"
    return title, text + _file("conflicts"), _pairs(found.conflicts), "conflicts.png"


def _outliers(found: Findings) -> Section:
    title = "Outliers"
    if not len(found.outliers):
        return title, "No image is far from all others.", "", ""
    text = (
        f"{_count(len(found.outliers), 'image is', 'images are')} far from all others, by the distance of the features "
        f"to the {_nearest(neighbour(found.images))}. Strange images are of another source, damaged, or rare and worth "
        "more of their kind"
    )
    rows = found.outliers.assign(score=_figures(found.outliers["score"], 1))
    heads = {"score": "robust standard deviations"}
    return title, text + _file("outliers"), _rows(rows, ["path", "split", "label", "score"], heads, 3), "outliers.png"


def _nearest(k: int) -> str:
    """nearest, 2nd nearest, ... 10th nearest."""
    return "nearest" if k == 1 else f"{k}{({2: 'nd', 3: 'rd'}).get(k, 'th')} nearest"


def _confusable(found: Findings) -> Section:
    title = "Classes that cannot be told apart"
    if not len(found.confusable):
        return title, "No two classes are taken for each other more often than chance may explain.", "", ""
    text = (
        "By models that had not seen the images. Such classes need a better backbone, fine-tuning, clearer labels, or "
        "should be one class"
    )
    rows = found.confusable.assign(
        share=[
            f"{share:.1%} ({low:.1%} to {high:.1%})"
            for share, low, high in found.confusable[["share", "low", "high"]].itertuples(index=False)
        ]
    )
    heads = {"other_class": "and", "share": "taken for the other"}
    return title, text + _file("confusable"), _rows(rows, ["class", "other_class", "images", "share"], heads, 2), ""


def _map(found: Findings) -> Section:
    shown, images = len(found.map), found.images
    of = "All images" if shown == images else f"{shown:,} of {images:,} images"
    text = f"{of}, placed by t-SNE so that images with similar features are near each other. Distances between heaps "
    return "The map", text + "say little.", "", "map.png"


def _curve(found: Findings) -> Section:
    main = MAIN[found.task]
    skipped = "".join(f" {share:.0%} was left out: {reason}." for share, reason in found.curve.skipped.items())
    if not len(found.curve.sizes):
        return "What more images bring", escape(found.gain), "", ""
    rows = found.curve.sizes.assign(
        share=[f"{share:.1%}" for share in found.curve.sizes["share"]],
        images=[f"{images:,.0f}" for images in found.curve.sizes["images"]],
        value=[
            f"{main.text(value)} ({main.text(low)} to {main.text(high)})"
            for value, low, high in found.curve.sizes[["value", "low", "high"]].itertuples(index=False)
        ],
    )
    heads = {"share": "of all", "images": "training images", "value": f"{main.title} on validation"}
    return (
        "What more images bring",
        escape(found.gain + skipped),
        _rows(rows, ["share", "images", "value"], heads, 0),
        "curve.png",
    )


def _pairs(pairs: pd.DataFrame) -> str:
    rows = pairs.assign(
        cosine_pixels=_figures(pairs["cosine_pixels"], 3), cosine_features=_figures(pairs["cosine_features"], 3)
    )
    columns = ["path", "split", "label", "other_path", "other_split", "other_label", "cosine_pixels", "cosine_features"]
    heads = {"other_path": "and", "other_split": "split", "other_label": "label"}
    return _rows(rows, columns, {**heads, "cosine_pixels": "pixels", "cosine_features": "features"}, 6)


def _rows(rows: pd.DataFrame, columns: list[str], heads: dict[str, str], words: int) -> str:
    cells = [[str(cell) for cell in row] for row in rows[columns].head(LISTED).itertuples(index=False)]
    more = f"<p>... and {len(rows) - LISTED:,} more.</p>" if len(rows) > LISTED else ""
    return table([heads.get(name, name) for name in columns], cells, words) + more


def _file(name: str) -> str:
    return f' (all in <a href="{name}.parquet">{name}.parquet</a>).'


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _percent(values: pd.Series[Any]) -> list[str]:
    return [f"{value:.1%}" for value in values]


def _figures(values: pd.Series[Any], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in values]
