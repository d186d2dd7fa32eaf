"""The champion as the gate sees it: its package, fetched, verified and read once for all checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from graft.tasks.register.reference_set import Reference


@dataclass(frozen=True)
class Champion:
    """The version with the alias `champion`.

    Attributes:
        package: its folder, verified.
        reference: the images that it was trained on; None for a package from before Graft kept that.
    """

    version: ModelVersion
    package: Path
    reference: Reference | None

    @classmethod
    def load(cls, package: Path, version: ModelVersion) -> Champion:
        return cls(version, package, Reference.load(package))
