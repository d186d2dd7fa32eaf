"""The outcome of a run in words: for the commit, MLflow's pages and notifications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow.entities.model_registry import ModelVersion

from ..gate.verdict import Verdict
from ..registry.description import with_gate
from ..status.pending import Changes
from ..tracking.tracker import Tracker
from ..versioning.dvc import raw_hash
from ..versioning.git import git_state
from .send_notice import About

What = Literal["promoted", "first", "waits", "undecided", "refused", "champion"]


@dataclass(frozen=True)
class Outcome:
    """What became of the challenger.

    Attributes:
        what: `promoted`, `first` (champion of all), `waits` (for `graft promote`), `undecided` (too few test images),
            `refused` or `champion` (as before).
        previous: the version of the champion before; empty if there was none.
    """

    what: What
    model: str
    version: str
    previous: str
    verdict: Verdict

    def sentence(self) -> str:
        said = {
            "promoted": f"version {self.version} of `{self.model}` is the champion",
            "first": f"version {self.version} of `{self.model}` is the first champion",
            "waits": f"version {self.version} of `{self.model}` has passed the gate and waits for `graft promote`",
            "undecided": f"version {self.version} of `{self.model}` is undecided, and waits for more images",
            "refused": f"version {self.version} of `{self.model}` was refused",
            "champion": f"version {self.version} of `{self.model}` is the champion, as before",
        }[self.what]
        return said if self.what in ("first", "champion") else f"{said}: {self.verdict.sentence}"

    def about(self) -> About | None:
        """The kind of notification that it is worth; None for none."""
        known: dict[str, About] = {
            "promoted": "promotion",
            "first": "promotion",
            "waits": "promotion",
            "undecided": "refusal",
            "refused": "refusal",
        }
        return known.get(self.what)

    def facts(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "model": self.model,
            "version": self.version,
            "previous": self.previous,
            "why": self.verdict.sentence,
            **self.verdict.metrics,
        }


def commit_message(changes: Changes, outcome: Outcome) -> str:
    return f"Retrain: {changes.sentence or 'no change'}\n\n{outcome.sentence()}"


def checks_table(verdict: Verdict) -> str:
    """The gate in Markdown."""
    rows = [
        [row[key].replace("|", "\\|") for key in ("check", "outcome", "found", "allowed")] for row in verdict.rows()
    ]
    head = ["| check | outcome | found | allowed |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def parent_text(tracker: Tracker, root: Path, changes: Changes, outcome: Outcome | None) -> Callable[[], str]:
    """The start of the description of the MLflow run, made when it is called."""

    def text() -> str:
        git, data = git_state(root), raw_hash(root)
        link = git.link("")
        code = f"[`{git.commit[:12]}`]({link})" if link else f"`{git.commit[:12]}`"
        lines = [f"Because of: {changes.sentence}" if changes.sentence else "Nothing had changed"]
        lines.append(f"Images `{data or 'not tracked'}`, code {code}{' with uncommitted changes' if git.dirty else ''}")
        if outcome is None:
            return "  \n".join(lines)
        version = f"[version {outcome.version}](#/models/{outcome.model}/versions/{outcome.version})"
        lines.insert(0, f"**{outcome.sentence()}**\n\nRegistered as {version} of `{outcome.model}`.\n")
        return "  \n".join(lines) + "\n\n" + checks_table(outcome.verdict)

    return text


def describe_version(tracker: Tracker, version: ModelVersion, outcome: Outcome) -> None:
    """Puts the gate's table below the text that the stage `register` wrote about the version."""
    before = tracker.client.get_model_version(version.name, version.version).description or ""
    compared = f"Compared with version {outcome.previous}.\n\n" if outcome.previous else ""
    text = f"{outcome.sentence()}\n\n{compared}{checks_table(outcome.verdict)}"
    tracker.client.update_model_version(version.name, version.version, with_gate(before, text))
