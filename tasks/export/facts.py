"""What an exported file says of itself: classes, task, calibration, licence, origin."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..common.core.files import read_json
from ..common.heads.calibration import Calibration
from ..register.packaged_eyes import eyes_in, reading_in

NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Origin:
    """Where a package comes from.

    Attributes:
        model: its name: a version in the registry, or a folder.
        data: the hash of the images that it was trained on, as DVC has it.
        commit: of git.
        licences: of the weights, one for each backbone.
    """

    model: str
    data: str = NOT_KNOWN
    commit: str = NOT_KNOWN
    licences: tuple[str, ...] = ()

    @property
    def licence(self) -> str:
        """In one line."""
        return ", ".join(dict.fromkeys(each or NOT_KNOWN for each in self.licences)) or NOT_KNOWN


def facts_of(package: Path, origin: Origin, precision: str) -> dict[str, str]:
    """For the metadata of a file, as text; what is more than a text is JSON."""
    facts = read_json(package / "package.json")
    calibration = {key: value for key, value in asdict(Calibration.load(package)).items() if key != "metrics"}
    told: dict[str, Any] = {
        "classes": facts["classes"],
        "calibration": calibration,
        "reading": reading_in(facts).as_dict(),
        "transforms": [eye["transform"] for eye in eyes_in(facts)],
    }
    return {
        "task": facts["task"],
        **{key: json.dumps(value, ensure_ascii=False) for key, value in told.items()},
        "model": origin.model,
        "data": origin.data,
        "git_commit": origin.commit,
        **{key: str(facts[key]) for key in ("backbone", "weights", "weights_sha256", "fingerprint", "candidate")},
        "licence": origin.licence,
        "precision": precision,
        "graft": version("graft"),
    }


def backbones_in(package: Path) -> list[tuple[str, str]]:
    """(backbone, kind and place of its weights) of each graph of a package."""
    facts = read_json(package / "package.json")
    eyes = facts.get("eyes") or [facts]
    return [(eye["backbone"], eye["weights"]) for eye in eyes]
