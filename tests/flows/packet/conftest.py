"""One packet for all tests of packets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from projects import made_once

from graft.flows.lineage.trace import trace
from graft.flows.packet.make import make_packet
from graft.flows.registry import ledger
from graft.flows.registry.description import with_gate
from graft.flows.tracking.tracker import Tracker
from graft.tasks.common.core.files import read_json

if TYPE_CHECKING:
    from projects import Project

SECRET = "hunter2"

CARD = {
    "provider": "Ada & Söhne <ltd>",
    "contact": "mail@example.org",
    "license": "apache-2.0",
    "intended_use": "Sorting *tiles*\nby colour.",
    "limits": "Fails in the dark.",
}

GATE = """version 1 was promoted

| check | outcome | found | allowed |
| --- | --- | --- | --- |
| gain | passed | +1.0 | -2 |"""


def prepare(project: Project) -> None:
    """Gives version 1 what people and the flow add: a card, a description, a verdict, and addresses with secrets."""
    project.set("card", **CARD)
    project.git("commit", "--all", "--quiet", "--message", "card")
    tracker = Tracker(project.root)
    version = tracker.client.get_model_version("graft", "1")
    metrics = {"accuracy": 1.0, "champion_accuracy": 0.75}
    why = f"better, see https://ada:{SECRET}@example.org/x"
    ledger.enter(tracker, ledger.new_entry(tracker, version, "promoted", "7", why, metrics))
    tracker.client.update_model_version("graft", "1", with_gate(f"By hand.\n\n{version.description}", GATE))
    parent = project.json("runs/head.json")["parent_run_id"]
    address = f"https://ada:{SECRET}@example.org/repository.git"
    tracker.client.set_tag(parent, "mlflow.source.git.repoURL", address)


def make(project: Project) -> dict[str, Any]:
    """Makes the packet twice, the second time elsewhere and as a zip."""
    prepare(project)
    first = make_packet(project.root, "champion")
    again = make_packet(project.root, "graft/1", project.root / "again" / "graft-1", zipped=True)
    return {"first": first, "again": again, "trace": trace(project.root, "1")}


@dataclass(frozen=True)
class Made:
    """A project with a packet. Not to be changed: copy what you change.

    Attributes:
        folder, zip: the packet.
        first, again: what `make_packet` returned.
        trace: the answer of `graft trace`.
    """

    project: Project
    folder: Path
    zip: Path
    first: dict[str, Any]
    again: dict[str, Any]
    trace: dict[str, Any]

    def json(self, name: str) -> Any:
        return read_json(self.folder / name)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def made(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root, told = made_once(tmp_path_factory, "packet", lambda root: make(finished.copy(root)))
    project = type(finished)(root)
    return Made(project, root / "packets" / "graft-1", root / "again" / "graft-1.zip", **told)
