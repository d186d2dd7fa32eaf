"""The evidence of a packet: files as they were recorded, copied from DVC, MLflow, git and the ledger."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.data.manifest import with_later
from graft.tasks.preprocess.label_history import Answer, read_answers

from ..lineage.environment import recorded
from ..lineage.executions import RESULT, Execution, Records
from ..lineage.provenance import labels_as_found, read_recipe
from ..lineage.trace import Lineage
from ..registry import integrity, ledger
from ..registry.description import gate_of
from ..registry.models import fetched_model
from ..runtime.params import load_params
from ..tracking.artifacts import fetched_artifacts
from ..tracking.tracker import Tracker
from ..versioning import dvc
from .facts import Facts

MANIFEST, REJECTED, LISTING = "data/manifest.parquet", "data/rejected.parquet", "data/raw.dir.json"

LABELS, LEDGER, GATE, MODEL = "labels.csv", "ledger.jsonl", "gate.md", "model.files.json"

PAGE = ("index.html", "classes.csv", "predictions.parquet")
"""The files of the report that MLflow has, besides its pictures, which are in the page too."""


def gather(lineage: Lineage, version: ModelVersion, folder: Path) -> Facts:
    """Everything recorded about a version; the evidence is copied to the folder.

    Raises:
        GraftError: its model cannot be fetched, or is not the one that was registered.
    """
    records, missing = lineage.records, dict[str, str]()
    trace = lineage.model(version, f"{version.name}/{version.version}")
    execution = records.of_version(version)
    if execution is None:
        missing["runs"] = f"MLflow no longer has the run {version.run_id} that made the version"
    else:
        _copy_run(records.tracker, execution, folder, missing)
        _copy_data(records, execution, folder, missing)
        _copy_report(records, execution, folder, missing)
    answers = _copy_labels(records, execution, version, folder, missing)
    with fetched_model(records.tracker, version) as model:
        package = read_json(model / "artifacts" / "package" / "package.json")
        requirements = (model / "requirements.txt").read_text(encoding="utf-8").split()
        files = integrity.listing(model)
    (folder / MODEL).write_text(integrity.listed(files), encoding="utf-8")  # its SHA-256 is the digest
    facts = Facts(
        folder=folder,
        version=version,
        trace=trace,
        card=load_params(records.tracker.paths.params).card,
        execution=execution,
        digest=ledger.digest_of(records.root, (version.name, str(version.version), version.run_id or "")),
        model=files,
        package=package,
        requirements=requirements,
        packages=recorded(records.tracker, execution.parent) if execution is not None else {},
        entries=_entries(records, version),
        gate=gate_of(version.description or ""),
        answers=answers,
        images=_images(folder),
        missing=missing,
    )
    _write_decisions(facts)
    return facts


def _copy_run(tracker: Tracker, execution: Execution, folder: Path, missing: dict[str, str]) -> None:
    """The lock and the list of packages of the execution."""
    for name, what in {"dvc.lock": "DVC's record of the stages", "environment.txt": "the list of packages"}.items():
        with fetched_artifacts(tracker, execution.parent.info.run_id, name) as found:
            if found is None:
                missing[f"run/{name}"] = f"the run that made the version recorded no {name}: {what} is not known"
            else:
                _copy({f"run/{name}": found / name}, folder)


def _copy_data(records: Records, execution: Execution, folder: Path, missing: dict[str, str]) -> None:
    """The lists of images, and DVC's listing of data/raw, whose md5 is the hash of the data."""
    names = {"manifest.parquet": MANIFEST, "rejected.parquet": REJECTED}
    try:
        files = dvc.bring_back(records.root, execution.manifest, "the lists of images")
        _copy({target: files[name] for name, target in names.items()}, folder)
    except GraftError as error:
        run = execution.stages.get("preprocess")
        if run is None or not _copy_artifacts(records.tracker, run.info.run_id, names, folder):
            missing[MANIFEST] = f"the list of images is neither in DVC nor in MLflow: {error.got}"
    listed = dvc.cached_file(records.root, execution.raw) if execution.raw else None
    if listed is None:
        missing[LISTING] = f"DVC's cache does not have the listing of data/raw ({execution.raw or 'not tracked'})"
    else:
        _copy({LISTING: listed}, folder)


def _copy_report(records: Records, execution: Execution, folder: Path, missing: dict[str, str]) -> None:
    """The report, from DVC; otherwise its page, from MLflow."""
    try:
        files = dvc.bring_back(records.root, execution.hash_of("report"), "the report")
        _copy({f"report/{name}": file for name, file in files.items()}, folder)
        return
    except GraftError as error:
        reason = error.got
    run, names = execution.stages.get("evaluate"), {name: f"report/{name}" for name in PAGE}
    page = {PAGE[0]: names[PAGE[0]]}  # all that some tasks have
    if run is not None and any(
        _copy_artifacts(records.tracker, run.info.run_id, each, folder) for each in (names, page)
    ):
        missing["report/audit"] = f"DVC no longer has the report ({reason}); its page is the copy in MLflow"
    else:
        missing["report"] = f"the report is neither in DVC nor in MLflow: {reason}"


def _copy_artifacts(tracker: Tracker, run_id: str, names: Mapping[str, str], folder: Path) -> bool:
    """Copies artifacts of a run; whether it has all of them."""
    with fetched_artifacts(tracker, run_id, *names) as found:
        if found is None:
            return False
        _copy({target: found / name for name, target in names.items()}, folder)
    return True


def _copy(files: Mapping[str, Path], folder: Path) -> None:
    """Copies files, whose names may come from a remote.

    Raises:
        GraftError: a name leads out of the folder.
    """
    for name, file in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise GraftError("a file of the packet would lie outside of it", got=name, todo="check the DVC remote")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / path)


def _copy_labels(
    records: Records, execution: Execution | None, version: ModelVersion, folder: Path, missing: dict[str, str]
) -> list[Answer]:
    """The labels that people had given when the version was made, otherwise those of today."""
    found = None
    try:
        if execution is not None:
            recipe = read_recipe(records, execution, "it", version.tags.get(RESULT, ""))
            if not recipe.labels:
                missing[LABELS] = "the version was made without data/labels.csv: nobody had labelled images in Graft"
                return []
            found = labels_as_found(records.root, recipe)
    except GraftError as error:
        missing[LABELS] = f"the labels as they were are not known ({error.got}); these are the labels of today"
    today = records.tracker.paths.labels
    if found is None and today.is_file():
        found = today.read_bytes()
        missing.setdefault(LABELS, "no commit has the labels as they were; these are the labels of today")
    if found is None:
        missing[LABELS] = "the project has no data/labels.csv: nobody has labelled images with `graft label`"
        return []
    (folder / LABELS).write_bytes(found)
    return read_answers(folder / LABELS)


def _entries(records: Records, version: ModelVersion) -> list[ledger.Entry]:
    number = str(version.version)
    every = ledger.entries(records.tracker, records.name)
    return [entry for entry in every if number in (entry.version, entry.previous)]


def _images(folder: Path) -> pd.DataFrame | None:
    file = folder / MANIFEST
    return with_later(pd.read_parquet(file)) if file.is_file() else None


def _write_decisions(facts: Facts) -> None:
    facts.write(LEDGER, "".join(f"{entry.line()}\n" for entry in facts.entries))
    if not facts.entries:
        facts.missing[LEDGER] = "the ledger has no decision about the version: nobody has promoted or judged it"
    facts.write(GATE, f"# The gate: {facts.title}\n\n{facts.gate or 'No gate has judged this version.'}\n")
    if not facts.gate:
        facts.missing[GATE] = "no gate has judged the version: it was made by `graft repro`, or was the first champion"
