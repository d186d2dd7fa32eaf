"""What Graft's statistics promise against what simulations measure.

    python -m bench.statistics                      all kinds; writes docs/explanation/statistics.md again
    python -m bench.statistics --only intervals     one kind; the others keep their results
    python -m bench.statistics --runs 200           a short trial: prints its table, writes nothing

A kind of statement is a module in bench/simulations/ with `long_run(runs) -> list[Row]`, named in `KINDS`. The exit
code is 1 if a measured rate is outside its tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from .processes import ROOT
from .report import replace_between
from .simulations import (
    calibration,
    conformal,
    copies,
    drift,
    gate,
    intervals,
    keep_or_drop,
    pvalues,
    selective,
    splits,
)
from .simulations.row import Row

KINDS: dict[str, Callable[[int], list[Row]]] = {
    "intervals": intervals.long_run,
    "pvalues": pvalues.long_run,
    "gate": gate.long_run,
    "keep or drop": keep_or_drop.long_run,
    "selective": selective.long_run,
    "calibration": calibration.long_run,
    "conformal": conformal.long_run,
    "drift": drift.long_run,
    "copies": copies.long_run,
    "splits": splits.long_run,
}
"""Kind of statement -> its simulation."""

RUNS = 1000
"""Of the published table."""

RESULTS = ROOT / "bench" / "results" / "statistics.json"
PAGE = ROOT / "docs" / "explanation" / "statistics.md"

Table = dict[str, list[Row]]


def markdown(table: Table) -> Iterator[str]:
    """A line for each statement, by kind."""
    yield "| statement | promised | measured | passes from | to | runs | |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for kind, rows in table.items():
        yield f"| **{kind}** | | | | | | |"
        for row in rows:
            rates = (row.promised, row.measured, *row.tolerance)
            verdict = "passes" if row.passes else "**fails**"
            yield f"| {row.statement} | {' | '.join(f'{rate:.1%}' for rate in rates)} | {row.runs:,} | {verdict} |"


def published() -> Table:
    """The results of earlier runs, in the order of `KINDS`."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return {kind: [_row(row) for row in found[kind]] for kind in KINDS if kind in found}


def _row(values: dict[str, object]) -> Row:
    return Row(**{**values, "tolerance": tuple(values["tolerance"])})  # type: ignore[arg-type]


def publish(table: Table) -> None:
    """Writes bench/results/statistics.json and the table of the page."""
    rows = {kind: [asdict(row) for row in found] for kind, found in table.items()}
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(replace_between(PAGE.read_text(encoding="utf-8"), "statistics", "\n".join(markdown(table))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=None, metavar="N", help=f"a trial of N runs (default {RUNS})")
    parser.add_argument("--only", choices=list(KINDS), default=None, metavar="KIND", help=", ".join(KINDS))
    options = parser.parse_args()
    kinds = [options.only] if options.only else list(KINDS)
    found = {kind: KINDS[kind](options.runs or RUNS) for kind in kinds}
    print("\n".join(markdown(found)))
    if options.runs is None:
        publish({kind: {**published(), **found}[kind] for kind in KINDS if kind in {**published(), **found}})
    sys.exit(0 if all(row.passes for rows in found.values() for row in rows) else 1)


if __name__ == "__main__":
    main()
