"""audit: what the features say about the data, and how much more data would help. It changes no data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.core.files import whole_folder, write_json
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, read_feature_set
from ..common.data.manifest import write_table
from ..common.data.task import MAIN
from ..common.reporting.html import inlined
from ..common.reporting.origin import origin
from .findings import Findings, audit
from .page import audit_page
from .params import AuditParams
from .plots import curve_plot, label_issues_plot, map_plot, outliers_plot, pairs_plot, scores_plot
from .verdicts import Verdict, failure, warnings

UNJUDGED = {"reconstruction": ("label_issues", "conflicts", "confusable")}
"""The checks of labels, which a task without labels to learn does not have."""

TABLES = ("label_issues", "leaks", "conflicts", "outliers", "confusable")


def run(params: AuditParams, paths: Paths) -> Record:
    """Runs every check, compares the findings with the limits, and writes and prints them.

    If a finding exceeds its limit and `audit.on_...` is `fail`, the record has the failure. It stops the run after
    everything is recorded.
    """
    pack = read_feature_set(paths.features)
    found = audit(pack, params, paths)
    verdicts = judge(found, params)
    _write(found, verdicts, pack, params, paths)
    for line in warnings(verdicts):
        say(line)
    return _record(found, verdicts, paths)


def judge(found: Findings, params: AuditParams) -> list[Verdict]:
    """One verdict per check; for regression there are no checks of classes, for anomaly no confusable ones, for
    reconstruction none of labels."""
    split = {name: found.by_split.get(name, 0) for name in ("train", "val", "test")}
    learned, tested = split["train"] + split["val"], split["val"] + split["test"]
    copied = found.leaked["val"] + found.leaked["test"]
    marks = {"multilabel": "marks (an image and a class)", "anomaly": "good images"}.get(found.task, "labels")
    skipped = {"regression": ("conflicts", "confusable"), "anomaly": ("confusable",), **UNJUDGED}.get(found.task, ())
    counted = [
        ("label_issues", f"{marks} are suspected", found.doubted, found.judged),
        ("leaks", "validation and test images are also in an earlier split", copied, tested),
        ("conflicts", "images are also there under another label", found.conflicting, learned),
        ("outliers", "images are outliers", len(found.outliers), found.images),
        ("confusable", "pairs of classes are confusable", len(found.confusable), math.comb(found.classes, 2)),
    ]
    return [
        Verdict(name, what, number, of, getattr(params, f"max_{name}"), getattr(params, f"on_{name}"))
        for name, what, number, of in counted
        if name not in skipped
    ]


def _write(found: Findings, verdicts: Sequence[Verdict], pack: FeatureSet, params: AuditParams, paths: Paths) -> None:
    with whole_folder(paths.audit) as folder:
        for name in TABLES:
            write_table(getattr(found, name), folder / f"{name}.parquet")
        write_table(found.near_duplicates.leaked(pack), folder / "leaked.parquet")
        write_table(found.map, folder / "map.parquet")
        write_table(found.curve.table, folder / "curve.parquet")
        if len(found.scores):
            write_table(found.scores, folder / "scores.parquet")
        write_json(folder / "audit.json", _facts(found, verdicts))
        _draw(found, pack, params.examples, paths.raw, folder)
        page = audit_page(found, verdicts, inlined(folder), origin(pack, paths))
        (folder / "index.html").write_text(page, encoding="utf-8")
    with whole_folder(paths.plots("audit")) as folder:
        found.curve.sizes.to_csv(folder / "curve.csv", index=False)
        found.map.to_csv(folder / "map.csv", index=False)


def _draw(found: Findings, pack: FeatureSet, examples: int, raw: Path, folder: Path) -> None:
    main, reading = MAIN[found.task], pack.reading
    if len(found.scores):
        scores_plot(found.scores.head(examples), raw, folder / "scores.png", reading)
    elif len(found.label_issues):
        label_issues_plot(found.label_issues.head(examples), raw, folder / "label_issues.png", reading)
    for name, title in (("leaks", "The same picture in two splits"), ("conflicts", "The same picture, two labels")):
        pairs = getattr(found, name)
        if len(pairs):
            pairs_plot(pairs.head(max(1, examples // 2)), title, raw, folder / f"{name}.png", reading)
    if len(found.outliers):
        outliers_plot(found.outliers.head(examples), raw, folder / "outliers.png", reading)
    map_plot(found.map, folder / "map.png", found.task == "regression")
    if len(found.curve.sizes):
        curve_plot(found.curve, main.title, main.percent, folder / "curve.png")


def _facts(found: Findings, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """audit.json."""
    curve = found.curve
    return {
        "task": found.task,
        "l2": found.l2,
        "unjudged": found.unjudged,
        "label_issues_by_chance": found.by_chance,
        "units": found.units,
        **_out_of_fold(found),
        "checks": {one.name: one.facts() for one in verdicts},
        "leaked": found.leaked,
        "near_duplicates": found.near_duplicates.count,
        "curve": {
            "sizes": curve.sizes.to_dict("records"),
            "skipped": {f"{share:g}": reason for share, reason in curve.skipped.items()},
            "doubling": curve.doubling,
            "law": curve.fitted,
        },
    }


def _out_of_fold(found: Findings) -> dict[str, float]:
    """The metric and both ends of its interval; empty without held-out images."""
    names = [f"out_of_fold_{key}" for key in MAIN[found.task].keys]
    return dict(zip(names, found.out_of_fold or ()))


def _record(found: Findings, verdicts: Sequence[Verdict], paths: Paths) -> Record:
    doubling = {key: value for key, value in found.curve.doubling.items() if key != "reason"}
    curve = [(round(size.images), float(size.value)) for size in found.curve.sizes.itertuples()]
    metrics: dict[str, Any] = {
        **{one.name: one.found for one in verdicts},
        "leaked": found.leaked,
        "near_duplicates": found.near_duplicates.count,
        "units": found.units,
        **_out_of_fold(found),
        "doubling": doubling,
    }
    return Record(
        metrics=metrics,
        facts={one.name: f"{one.state}: {one.text}" for one in verdicts} | {"doubling": found.gain},
        curves={"curve": curve} if curve else {},
        files=sorted(paths.audit.iterdir()),
        failure=failure(verdicts, paths.relative(paths.audit / "index.html")),
    )
