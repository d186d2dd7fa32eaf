"""What an execution was made of: images, code, backbone, stages, parameters and environment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.data.manifest import SPLITS, counts

from .environment import packages_of
from .executions import RESULT, Execution, Records
from .manifests import REJECTED, ImageList
from .provenance import read_recipe

Document = dict[str, Any]


def composition_of(
    records: Records,
    execution: Execution | None,
    listed: ImageList | None,
    version: ModelVersion | None,
    run: Run | None = None,
) -> Document:
    """The part of an answer that versions and runs have in common.

    Args:
        execution: None if MLflow no longer has it.
        listed: its images; None if nothing records them.
        version: the version that it made, if it made one.
        run: what to describe where there is no execution.
    """
    tags = dict(version.tags) if version is not None else {}
    stages = execution.stages if execution is not None else {}
    parent = execution.parent if execution is not None else run
    of_run = dict(parent.data.tags) if parent is not None else {}
    params = {stage: _params(run) for stage, run in stages.items()}
    return {
        "parent_run_id": str(parent.info.run_id) if parent is not None else "",
        "run_name": (parent.info.run_name or "") if parent is not None else "",
        "data": _data(execution, listed, tags),
        "code": _code(of_run, tags) | {"changed": _changed(records, execution, tags)},
        "backbone": _backbone(stages.get("features"), params.get("features", {}), tags),
        "stages": _stages(execution) if execution is not None else [],
        "parameters": params,
        "environment": _environment(of_run, stages),
        "prefect": {key: of_run.get(f"prefect.{key}", "") for key in ("flow_run_id", "flow_run_url")},
    }


def image_counts(listed: ImageList) -> Document:
    """The number of images by split and class; without an exact list only what the package records."""
    table = listed.table
    if not listed.exact:
        splits = {str(split): int(number) for split, number in table["split"].value_counts().items()}
        return {"images": len(table), "splits": splits, "classes": {}, "exact": False, "note": listed.note}
    taken, rejected = table[table["split"] != REJECTED], table[table["split"] == REJECTED]
    reasons = rejected["reason"].str.partition(":")[0].value_counts() if len(rejected) else pd.Series(dtype="int64")
    return {
        "images": len(taken),
        "splits": {split: int((taken["split"] == split).sum()) for split in SPLITS},
        "classes": counts(taken),
        "rejected": len(rejected),
        "rejected_because": {str(reason): int(number) for reason, number in reasons.items()},
        "exact": True,
        "note": "",
    }


def iso_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _data(execution: Execution | None, listed: ImageList | None, tags: Mapping[str, str]) -> Document:
    raw = (execution.raw if execution is not None else "") or tags.get("dvc.raw", "")
    manifest = execution.manifest if execution is not None else ""
    return {"raw": raw, "manifest": manifest, **(image_counts(listed) if listed is not None else {})}


def _changed(records: Records, execution: Execution | None, tags: Mapping[str, str]) -> list[str] | None:
    """The code that differed from the commit; None if that is not known."""
    if execution is None:
        return None
    try:
        return read_recipe(records, execution, "it", tags.get(RESULT, "")).changed_code(records.root)
    except GraftError:
        return None


def _backbone(features: Run | None, params: Mapping[str, str], of_version: Mapping[str, str]) -> Document:
    of_features = features.data.tags if features is not None else {}
    return {
        "name": of_version.get("backbone") or params.get("backbone", ""),
        "weights": params.get("weights", ""),
        "weights_sha256": of_version.get("weights_sha256") or str(of_features.get("weights_sha256", "")),
        "licence": str(of_features.get("licence", "")),
        "fingerprint": of_version.get("features.fingerprint", ""),
    }


def _params(run: Run) -> dict[str, str]:
    """A stage's parameters, without its name as prefix."""
    return {key.partition(".")[2]: value for key, value in sorted(run.data.params.items())}


def _code(of_run: Mapping[str, str], of_version: Mapping[str, str]) -> Document:
    return {
        "commit": of_version.get("git.commit") or of_run.get("git.commit", ""),
        "dirty": of_run.get("git.dirty") == "true",
        "result": of_version.get(RESULT, ""),
        "branch": of_run.get("mlflow.source.git.branch", ""),
        "repository": of_run.get("mlflow.source.git.repoURL", ""),
        "lock_sha256": of_run.get("dvc.lock.sha256", ""),
    }


def _stages(execution: Execution) -> list[Document]:
    return [
        {
            "stage": stage,
            "run_id": str(run.info.run_id),
            "state": "reused" if stage in execution.reused else "ran",
            "status": run.info.status,
            "at": iso_time(run.info.start_time),
            "seconds": run.data.metrics.get("seconds"),
            "commit": run.data.tags.get("git.commit", ""),
        }
        for stage, run in execution.stages.items()
    ]


def _environment(of_run: Mapping[str, str], stages: Mapping[str, Run]) -> Document:
    """The environment of the execution, and the packages of reused stages that had other versions."""
    whole = packages_of(of_run)
    others = {
        stage: {name: version for name, version in packages_of(run.data.tags).items() if whole.get(name) != version}
        for stage, run in stages.items()
    }
    return {
        "python": of_run.get("python", ""),
        "machine": of_run.get("machine", ""),
        "user": of_run.get("mlflow.user", ""),
        "packages": whole,
        "stages_with_others": {stage: other for stage, other in others.items() if other},
    }
