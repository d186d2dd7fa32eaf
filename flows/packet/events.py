"""Lineage events of every stage: OpenLineage 2-0-2, one JSON object a line.

https://openlineage.io/spec/2-0-2/OpenLineage.json
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from mlflow.entities import Run

from ..lineage.executions import Execution
from .facts import GRAFT, Document, Facts

NAME = "openlineage.jsonl"

SPEC = "https://openlineage.io/spec"
RUN_FACET = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunFacet"
EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
PARENT = f"{SPEC}/facets/1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet"
CODE = f"{SPEC}/facets/1-0-1/SourceCodeLocationJobFacet.json#/$defs/SourceCodeLocationJobFacet"
VERSION = f"{SPEC}/facets/1-0-0/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"

ENDS = {"FINISHED": "COMPLETE", "FAILED": "FAIL", "KILLED": "ABORT"}


def lines(facts: Facts) -> str:
    """All events, in the order of the stages."""
    return "".join(f"{json.dumps(event, ensure_ascii=False)}\n" for event in events(facts))


def events(facts: Facts) -> Iterator[Document]:
    """START of each stage, then its end; none if MLflow has lost the runs."""
    execution = facts.execution
    for stage, run in (execution.stages if execution is not None else {}).items():
        assert execution is not None
        about = _about(facts, execution, stage, run)
        yield {"eventType": "START", "eventTime": moment(run.info.start_time), **about}
        if run.info.end_time and run.info.status in ENDS:
            yield {"eventType": ENDS[run.info.status], "eventTime": moment(run.info.end_time), **about}


def _about(facts: Facts, execution: Execution, stage: str, run: Run) -> Document:
    tags, name = run.data.tags, facts.trace["name"]
    parent = tags.get("mlflow.parentRunId", execution.parent.info.run_id)
    facets = {
        "parent": _facet(PARENT, run={"runId": _uuid(parent)}, job={"namespace": _space(facts), "name": name}),
        "graft_parameters": _facet(
            RUN_FACET, parameters={key: run.data.params[key] for key in sorted(run.data.params)}
        ),
        "graft_stage": _facet(RUN_FACET, state="reused" if stage in execution.reused else "ran"),
    }
    return {
        "run": {"runId": _uuid(run.info.run_id), "facets": facets},
        "job": {"namespace": _space(facts), "name": f"{name}.{stage}", "facets": _code(facts, tags)},
        "inputs": [*_datasets(facts, tags, "dvc.dep.")],
        "outputs": [*_datasets(facts, tags, "dvc.out.")],
        "producer": _producer(),
        "schemaURL": EVENT,
    }


@cache
def _producer() -> str:
    return f"{GRAFT}:{version('graft')}"


def _space(facts: Facts) -> str:
    """The namespace: the repository, or the model where there is none."""
    return facts.trace["code"]["repository"] or f"{GRAFT}:{facts.trace['name']}"


def _code(facts: Facts, tags: Mapping[str, str]) -> Document:
    commit, repository = tags.get("git.commit", "none"), facts.trace["code"]["repository"]
    if commit == "none":
        return {}
    url = f"git+{repository}@{commit}" if "://" in repository else f"{GRAFT}:commit:{commit}"
    code = {"type": "git", "url": url, "version": commit, **({"repoUrl": repository} if repository else {})}
    return {"sourceCodeLocation": _facet(CODE, **code)}


def _datasets(facts: Facts, tags: Mapping[str, str], before: str) -> Iterator[Document]:
    for key, digest in sorted(tags.items()):
        if key.startswith(before) and digest:
            name = key.removeprefix(before)
            yield {
                "namespace": _space(facts),
                "name": name,
                "facets": {"version": _facet(VERSION, datasetVersion=digest)},
            }


def _facet(schema: str, **content: Any) -> Document:
    return {"_producer": _producer(), "_schemaURL": schema, **content}


def _uuid(run_id: str) -> str:
    """MLflow's ids are UUIDs without hyphens; another id gets one of its own."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, run_id))


def moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
