"""What the audit has found, and what a run would do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES, Paths

from ..status.pending import Changes, pending_here
from . import display

SHOWN = 12
"""How many suspected labels a notebook shows."""


@dataclass(frozen=True, repr=False)
class Audit:
    """The findings of the stage `audit`.

    Attributes:
        checks: one row per check, by its name: `found`, `of`, `limit`, `action`, and `state` (`ok`, `warn`, `fail`).
        facts: audit.json, with the out-of-fold metric and the learning curve.
        page: all findings as an HTML page.
    """

    root: Path
    checks: pd.DataFrame
    facts: dict[str, Any]
    page: Path

    @classmethod
    def of(cls, root: Path) -> Audit:
        """Of a project whose stage `audit` has run.

        Raises:
            DataError: it has not.
        """
        folder = Paths(root).audit
        if not (folder / "audit.json").is_file():
            raise DataError(f"{folder} holds no findings", todo="run `graft repro audit`")
        facts = read_json(folder / "audit.json")
        return cls(root, pd.DataFrame.from_dict(facts["checks"], orient="index"), facts, folder / "index.html")

    @property
    def label_issues(self) -> pd.DataFrame:
        """Images whose labels are suspected, the most suspected first."""
        return self._table("label_issues")

    @property
    def leaks(self) -> pd.DataFrame:
        """Pairs of images in two splits that are the same picture."""
        return self._table("leaks")

    @property
    def conflicts(self) -> pd.DataFrame:
        """Pairs of images that are the same picture under two labels."""
        return self._table("conflicts")

    @property
    def outliers(self) -> pd.DataFrame:
        """Images unlike all others, the most unlike first."""
        return self._table("outliers")

    @property
    def confusable(self) -> pd.DataFrame:
        """Pairs of classes that a model confuses."""
        return self._table("confusable")

    def _table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(Paths(self.root).audit / f"{name}.parquet")

    def __repr__(self) -> str:
        return self.checks.to_string()

    def _repr_html_(self) -> str:
        rows = [
            (str(check.Index).replace("_", " "), f"{check.found:,} of {check.of:,}", check.state)
            for check in self.checks.itertuples()
        ]
        suspected = self.label_issues.head(SHOWN)
        raw = Paths(self.root).raw
        shown = [(f"labelled {label}", raw / path) for path, label in zip(suspected["path"], suspected["label"])]
        return display.table("Audit", ["check", "found", "state"], rows, display.thumbnails(shown))


@dataclass(frozen=True, repr=False)
class Status:
    """What a run would do.

    Attributes:
        stages: those that would run for a reason of their own, in order.
        downstream: those that run after these if the outputs of these change.
        reasons: stage -> why, in words.
        sentence: all reasons in one sentence; empty if there are none.
        note: what to do first; mostly empty.
    """

    stages: tuple[str, ...]
    downstream: tuple[str, ...]
    reasons: dict[str, str]
    sentence: str
    note: str

    @classmethod
    def of(cls, root: Path) -> Status:
        """Of the project's files as they are now."""
        found: Changes = pending_here(root)
        reasons = {stage: "; ".join(each.words for each in why) for stage, why in found.reasons.items()}
        return cls(found.stages, found.downstream, reasons, found.sentence, found.note)

    @property
    def empty(self) -> bool:
        """Whether nothing would run."""
        return not self.stages

    def __repr__(self) -> str:
        return f"would run: {', '.join(self.stages)}: {self.sentence}" if self.stages else "nothing to do"

    def _repr_html_(self) -> str:
        title = self.note or self.sentence or "Nothing to do"
        return display.table(title, ["stage", "", "because"], [self._row(stage) for stage in STAGES])

    def _row(self, stage: str) -> tuple[str, str, str]:
        state = "runs" if stage in self.stages else "may run" if stage in self.downstream else "unchanged"
        return stage, state, self.reasons.get(stage, "")
