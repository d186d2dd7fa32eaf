"""Where the model's files come from: an in-toto Statement v1 with SLSA provenance v1.

https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from packaging.utils import canonicalize_name

from .events import moment
from .evidence import MODEL
from .facts import GRAFT, Document, Facts

NAME = "provenance.intoto.json"

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"


def statement(facts: Facts) -> Document:
    """The whole document: every file of the model, and the list whose SHA-256 the ledger has."""
    files = [*sorted(facts.model.items()), (MODEL, facts.digest.removeprefix("sha256:"))]
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha}} for name, sha in files if len(sha) == 64],
        "predicateType": PROVENANCE,
        "predicate": {"buildDefinition": _definition(facts), "runDetails": _details(facts)},
    }


def _definition(facts: Facts) -> Document:
    environment, code = facts.trace["environment"], facts.trace["code"]
    return {
        "buildType": f"{GRAFT}:pipeline:v1",
        "externalParameters": {"stages": facts.trace["parameters"], "register": facts.trace["name"]},
        "internalParameters": {
            "python": environment["python"],
            "machine": environment["machine"],
            "uncommitted": code["changed"] if code["changed"] is not None else "not known",
        },
        "resolvedDependencies": [*_dependencies(facts)],
    }


def _dependencies(facts: Facts) -> Iterator[Document]:
    code, data = facts.trace["code"], facts.trace["data"]
    if code["commit"] and code["commit"] != "none":
        at = f"git+{code['repository']}" if code["repository"] else f"{GRAFT}:repository"
        yield {"uri": f"{at}@{code['commit']}", "name": "code", "digest": {"gitCommit": code["commit"]}}
    for name in ("raw", "manifest"):
        if data[name]:
            md5 = data[name].removesuffix(".dir")
            yield {"uri": f"{GRAFT}:data/{name}:{data[name]}", "name": f"data/{name}", "digest": {"md5": md5}}
    for eye in facts.eyes:
        sha = {"digest": {"sha256": eye["weights_sha256"]}} if len(eye["weights_sha256"]) == 64 else {}
        yield {"uri": f"{GRAFT}:weights:{eye['backbone']}", "name": f"weights of {eye['backbone']}", **sha}
    for name, number in sorted(facts.packages.items()):
        if name != "python":
            yield {"uri": f"pkg:pypi/{canonicalize_name(name)}@{number.replace('+', '%2B')}"}


def _details(facts: Facts) -> Document:
    parent = facts.execution.parent.info if facts.execution is not None else None
    flow, lock = facts.trace["prefect"]["flow_run_id"], facts.trace["code"]["lock_sha256"]
    times: dict[str, Any] = {}
    if parent is not None:
        times = {"startedOn": moment(parent.start_time)}
        times |= {"finishedOn": moment(parent.end_time)} if parent.end_time else {}
    return {
        "builder": {"id": f"{GRAFT}:{'retrain' if flow else 'repro'}", "version": {"graft": _graft(facts)}},
        "metadata": {"invocationId": facts.trace["parent_run_id"], **times},
        **({"byproducts": [{"name": "dvc.lock", "digest": {"sha256": lock}}]} if lock else {}),
    }


def _graft(facts: Facts) -> str:
    return facts.trace["environment"]["packages"].get("graft", "") or version("graft")
