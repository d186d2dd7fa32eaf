"""Which stages a pipeline execution was asked for, and which of them it reused, by the dvc.lock at its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.tasks.code import tree_hash
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES, Paths

from ..versioning.dvc import locked_code, names_of, stages_of

Entry = dict[str, Any]
"""A stage's part of dvc.lock."""


def asked_for(root: Path, words: Sequence[str]) -> list[str]:
    """The stages that a command line brings up to date: those that it names, and everything that they depend on.

    If it names none, as `dvc repro` alone, every stage.
    """
    named = {word.rpartition(":")[2] for word in words} & set(STAGES)
    if not named or {"-p", "--pipeline", "-P", "--all-pipelines"} & set(words):
        return list(STAGES)
    above = _depends_on(root)
    if "--downstream" in words:
        named |= {stage for stage in STAGES if named & above[stage]}
    return [stage for stage in STAGES if any(stage == name or stage in above[name] for name in named)]


def reused_stages(root: Path, asked: Collection[str], ran: Mapping[str, str]) -> dict[str, str]:
    """Stage -> the earlier run whose result an execution reused.

    A stage counts if its entry in dvc.lock is the one that runs/<stage>.json describes, and if every stage before it
    has finished or counts itself: stages after a failure were never reached.

    Args:
        asked: the stages that the execution was asked to bring up to date.
        ran: stage -> MLflow's status of its run in this execution.
    """
    lock, above = stages_of(root / "dvc.lock"), _depends_on(root)
    current = {stage for stage, status in ran.items() if status == "FINISHED"}
    hashes = {out["path"]: out.get("md5") for entry in lock.values() for out in entry.get("outs", [])}
    found: dict[str, str] = {}
    for stage in STAGES:
        if stage in ran or stage not in asked or not above[stage] <= current:
            continue
        run = _described(root, stage, lock.get(stage, {}))
        if run and _fits(root, lock[stage], hashes):
            found[stage] = run
            current.add(stage)
    return found


def _described(root: Path, stage: str, entry: Entry) -> str:
    """The run of runs/<stage>.json if that file describes this entry of dvc.lock; else empty."""
    file = Paths(root).run(stage)
    if not entry or not file.is_file():
        return ""
    run, own = read_json(file), f"runs/{stage}.json"
    inputs = {**{dep["path"]: dep.get("md5") for dep in entry.get("deps", [])}, **locked_code(stage, entry)}
    outputs = {out["path"]: out.get("md5") for out in entry.get("outs", []) if out["path"] != own}
    return str(run["run_id"]) if (run.get("inputs"), run.get("outputs")) == (inputs, outputs) else ""


def _fits(root: Path, entry: Entry, hashes: Mapping[str, str | None]) -> bool:
    """Whether the inputs of an entry are what the stages before it wrote, by the current dvc.lock."""
    for dep in entry.get("deps", []):
        path = dep["path"]
        if path in hashes:
            now = hashes[path]
        elif any(path.startswith(f"{out}/") for out in hashes):
            now = tree_hash(root / path) if (root / path).exists() else None
        else:
            continue
        if now != dep.get("md5"):
            return False
    return True


def _depends_on(root: Path) -> dict[str, set[str]]:
    """Stage -> all stages whose outputs it reads, directly or not."""
    stages = stages_of(root / "dvc.yaml")
    outs = {stage: set(names_of(stages[stage].get("outs", []))) for stage in STAGES}
    above: dict[str, set[str]] = {}
    for stage in STAGES:
        deps = names_of(stages[stage].get("deps", []))
        direct = {name for name in above if any(_is_within(dep, out) for dep in deps for out in outs[name])}
        above[stage] = direct.union(*(above[name] for name in direct))
    return above


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
