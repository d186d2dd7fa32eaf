"""The copy of the project that a run works in: the user's checkout, or the worktree of unattended runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths

from ..labelling.night import Brought
from ..registry.registration import Registration, read_registration
from ..runtime.params import GateParams, RetrainParams, load_params
from .worktree import Workspace


@dataclass(frozen=True)
class WorkingCopy:
    """Where a run works and records.

    Attributes:
        project: the user's checkout.
        root: where the stages run: the checkout, or the same folder in the worktree.
        workspace: the worktree; None in the checkout.
        brought: what changed in the pool of images without a label.
    """

    project: Path
    root: Path
    workspace: Workspace | None = None
    brought: Brought = field(default_factory=Brought)

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def params(self) -> tuple[RetrainParams, GateParams]:
        params = load_params(self.paths.params)
        return params.retrain, params.gate

    def registered(self) -> Registration:
        """The version that the package of this run is registered as."""
        found = read_registration(self.paths)
        assert found is not None  # `ensure_registered` comes before every step that asks
        return found

    def made_by(self) -> tuple[str, str]:
        """The MLflow run of the execution that made the package, and that of its stage `register`."""
        made = read_json(self.paths.run("register"))
        return made["parent_run_id"], made["run_id"]
