"""What the documents of a packet are made from: everything recorded about one version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from graft.tasks.addresses import redacted
from graft.tasks.common.core.files import sha256
from graft.tasks.common.data.eyes import Fingerprint
from graft.tasks.common.data.task import METRICS, Metric
from graft.tasks.preprocess.label_history import Answer

from ..lineage.executions import Execution
from ..lineage.sections import images_text
from ..registry.ledger import Entry
from ..runtime.params import CardParams

Document = dict[str, Any]

GRAFT = "urn:graft"
"""Graft has no web address of its own, so what it names has URNs."""


@dataclass(frozen=True)
class Facts:
    """Attributes:
    folder: the packet's, with the evidence that was found.
    trace: the answer of `graft trace`.
    digest: of the model's files, as the ledger has it: `sha256:...`.
    model: file of the model -> its SHA-256.
    package: models/package/package.json.
    requirements: the packages that the model needs to run.
    packages: name -> version of all that were installed when it was made.
    entries: of the ledger, about the version.
    gate: the gate's sentence and table, in Markdown; empty if no gate has judged it.
    answers: labels that people gave until it was made.
    images: the rows of the manifest; None if it is lost.
    missing: what the packet lacks -> why.
    """

    folder: Path
    version: ModelVersion
    trace: Document
    card: CardParams
    execution: Execution | None
    digest: str
    model: Mapping[str, str]
    package: Mapping[str, Any]
    requirements: Sequence[str]
    packages: Mapping[str, str]
    entries: Sequence[Entry]
    gate: str
    answers: Sequence[Answer]
    images: pd.DataFrame | None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.trace['name']} version {self.trace['version']}"

    @property
    def task(self) -> str:
        return str(self.trace["task"] or self.package["task"])

    @property
    def name(self) -> str:
        """`graft/3`."""
        return f"{self.trace['name']}/{self.trace['version']}"

    @property
    def test(self) -> dict[str, float]:
        """All metrics of the stage evaluate, with the ends of their intervals."""
        run = self.execution.stages.get("evaluate") if self.execution is not None else None
        return dict(run.data.metrics) if run is not None else dict(self.trace["test"])

    @property
    def classes(self) -> list[str]:
        return list(self.package.get("classes") or self.trace["data"].get("classes") or [])

    @property
    def eyes(self) -> list[Fingerprint]:
        """Each backbone: `backbone`, `weights`, `weights_sha256`."""
        one = {key: self.package[key] for key in ("backbone", "weights", "weights_sha256")}
        return list(self.package.get("eyes") or [one])

    def sha256(self, name: str) -> str:
        """Of a file of the packet; empty if the packet lacks it."""
        file = self.folder / name
        return sha256(file) if file.is_file() else ""

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def write(self, name: str, text: str) -> None:
        """A file of the packet, without passwords in addresses."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(redacted(text), encoding="utf-8")

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def measured(facts: Facts) -> list[tuple[Metric, float, tuple[float, float] | None]]:
    """The test metrics of the task, each with the ends of its interval if it has one."""
    found = []
    for metric in METRICS[facts.task]:  # type: ignore[index]
        value, low, high = (facts.test.get(key) for key in metric.keys)
        if value is not None:
            found.append((metric, value, None if low is None or high is None else (low, high)))
    return found


def class_table(facts: Facts) -> pd.DataFrame | None:
    """report/classes.csv; None if the report is lost, or the task has no classes."""
    file = facts.folder / "report" / "classes.csv"
    table = pd.read_csv(file) if file.is_file() else None
    return table if table is not None and "class" in table else None


def images_in_words(data: Document) -> str:
    """The number of images by split."""
    return images_text(data).replace(":", " images:", 1) if "images" in data else "the images are not known"


def seed_of(facts: Facts) -> str:
    """What identifies the version, for ids that are the same in every packet of it."""
    return f"{GRAFT}:{facts.name}:{facts.digest}"
