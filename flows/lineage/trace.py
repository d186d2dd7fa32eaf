"""`graft trace`: where a registered model comes from, and which models an image, data or a commit went into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from tasks.common.core.errors import GraftError, nearest
from tasks.common.core.files import md5
from tasks.common.data.manifest import SPLITS, counts

from ..registry import ledger
from .environment import packages_of
from .executions import RESULT, RUN_DIGITS, Execution, Records
from .manifests import REJECTED, SEEN, ImageList, ImageLists
from .provenance import read_recipe

Document = dict[str, Any]
"""An answer; `kind` is `model`, `run`, `data`, `image` or `commit`."""

HEX = re.compile(r"[0-9a-f]{7,40}")
WHOLE = 32
"""Hexadecimal digits of an md5, and of the id of a run."""


def trace(root: Path, what: str) -> Document:
    """What is known of a version, a run, a hash or an image.

    Args:
        what: NAME@alias, NAME/3, an alias or a number; an MLflow run's id or its beginning; DVC's hash of a folder
            (<md5>.dir); an image's md5 or path; a git commit.

    Raises:
        GraftError: nothing recorded answers to it, or several things do.
    """
    return Lineage(root).trace(what)


@dataclass(frozen=True)
class Use:
    """That an image, data or a commit went into a version, or into a run of which no version came.

    Attributes:
        split: of the image: train, val, test, rejected, seen or held out; empty where no image was asked for.
        learned: whether the weights were fitted to the image; with `head.refit` they are to validation images too.
        exact: whether the split is known.
        why: the image was rejected, or its split is not known.
    """

    version: str
    aliases: list[str]
    run_id: str
    at: str
    test: dict[str, float]
    data: str
    commit: str
    split: str = ""
    label: str = ""
    path: str = ""
    image_id: str = ""
    learned: bool = False
    exact: bool = True
    why: str = ""


class Lineage:
    """The answers; what MLflow has is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.records = Records(root)
        self._lists = ImageLists(self.records.tracker)

    def trace(self, what: str) -> Document:
        """See `trace`."""
        version = self.records.named(what)
        if version is not None:
            return self.model(version, what)
        if re.fullmatch(r"[0-9a-f]{32}\.dir", what):
            return self._data(what, what)
        if HEX.fullmatch(what):
            found = self._by_digits(what)
            if found is not None:
                return found
        return self._image_by_path(what)

    # What digits mean

    def _by_digits(self, what: str) -> Document | None:
        """The one thing whose id begins with these digits; None without.

        Raises:
            GraftError: there are several.
        """
        answers = list(self._meanings(what))
        if len(answers) > 1:
            raise GraftError(
                f"{what} begins the ids of several things",
                got=", ".join(name for name, _ in answers),
                todo="give more digits",
            )
        return answers[0][1]() if answers else None

    def _meanings(self, what: str) -> Iterator[tuple[str, Callable[[], Document]]]:
        runs = [run for run in self.records.runs() if len(what) >= RUN_DIGITS and run.info.run_id.startswith(what)]
        yield from ((f"run {run.info.run_id}", lambda run=run: self._run(run, what)) for run in runs)  # type: ignore[misc]
        for commit in self._commits(what):
            yield f"commit {commit}", lambda commit=commit: self._commit(commit, what)  # type: ignore[misc]
        if len(what) == WHOLE and not runs:
            image = self._image(what, [what], [])
            if image["versions"] or image["runs"]:
                yield f"image {what}", lambda: image
            if self._places(f"{what}.dir"):
                yield f"data {what}.dir", lambda: self._data(f"{what}.dir", what)

    def _commits(self, beginning: str) -> list[str]:
        tags = [run.data.tags.get("git.commit", "") for run in self.records.runs()]
        tags += [version.tags.get(RESULT, "") for version in self.records.versions]
        return sorted({commit for commit in tags if commit.startswith(beginning)})

    # A version, or a run

    def model(self, version: ModelVersion, asked_for: str) -> Document:
        """All that is known of a version."""
        execution = self.records.of_version(version)
        listed = self._lists.whole(execution, version)
        number = str(version.version)
        return {
            "kind": "model",
            "asked_for": asked_for,
            "name": version.name,
            "version": number,
            "aliases": self.records.aliases.get(number, []),
            "registered": _time(version.creation_timestamp),
            "test": self._test(version),
            "task": version.tags.get("task", ""),
            "candidate": version.tags.get("candidate", ""),
            "register_run_id": str(version.run_id or ""),
            **self._of_execution(execution, listed, version),
            "history": self._history(number),
        }

    def _run(self, run: Run, asked_for: str) -> Document:
        """A run of the pipeline, or of one stage: the whole execution, and the versions that came of it."""
        execution = self.records.execution(str(run.info.run_id))
        made = self.records.registered_by(execution) if execution is not None else []
        listed = self._lists.whole(execution, None) if execution is not None else None
        return {
            "kind": "run",
            "asked_for": asked_for,
            "run_id": str(run.info.run_id),
            "name": run.info.run_name or "",
            "stage": run.data.tags.get("graft.stage", ""),
            "status": run.info.status,
            "started": _time(run.info.start_time),
            "versions": [asdict(self._use(version, execution)) for version in made],
            **self._of_execution(execution, listed, made[0] if made else None, run),
        }

    def _of_execution(
        self,
        execution: Execution | None,
        listed: ImageList | None,
        version: ModelVersion | None,
        run: Run | None = None,
    ) -> Document:
        tags = dict(version.tags) if version is not None else {}
        stages = execution.stages if execution is not None else {}
        parent = execution.parent if execution is not None else run
        of_run = dict(parent.data.tags) if parent is not None else {}
        params = {stage: _params(run) for stage, run in stages.items()}
        return {
            "parent_run_id": str(parent.info.run_id) if parent is not None else "",
            "run_name": (parent.info.run_name or "") if parent is not None else "",
            "data": self._data_of(execution, listed, tags),
            "code": _code(of_run, tags) | {"changed": self._changed(execution, tags)},
            "backbone": {
                "name": tags.get("backbone") or params.get("features", {}).get("backbone", ""),
                "weights": params.get("features", {}).get("weights", ""),
                "weights_sha256": tags.get("weights_sha256") or _tag(stages.get("features"), "weights_sha256"),
                "fingerprint": tags.get("features.fingerprint", ""),
            },
            "stages": _stages(execution) if execution is not None else [],
            "parameters": params,
            "environment": _environment(of_run, stages),
            "prefect": {key: of_run.get(f"prefect.{key}", "") for key in ("flow_run_id", "flow_run_url")},
        }

    def _data_of(self, execution: Execution | None, listed: ImageList | None, tags: Mapping[str, str]) -> Document:
        raw = (execution.raw if execution is not None else "") or tags.get("dvc.raw", "")
        manifest = execution.manifest if execution is not None else ""
        return {"raw": raw, "manifest": manifest, **(_images(listed) if listed is not None else {})}

    def _changed(self, execution: Execution | None, tags: Mapping[str, str]) -> list[str] | None:
        """The code that was not as committed; None if nothing tells."""
        if execution is None:
            return None
        try:
            return read_recipe(self.records, execution, "it", tags.get(RESULT, "")).changed_code(self._root)
        except GraftError:
            return None

    def _history(self, number: str) -> Document:
        """What the ledger says of a version."""
        all_entries = ledger.entries(self.records.tracker, self.records.name)
        moved = [entry for entry in all_entries if entry.what != "refused"]
        came = [entry for entry in moved if entry.version == number]
        went = [entry for entry in moved if entry.previous == number and entry.version != number]
        return {
            "replaced": asdict(came[-1]) if came and came[-1].previous else None,
            "replaced_by": asdict(went[-1]) if went else None,
            "entries": [asdict(entry) for entry in all_entries if number in (entry.version, entry.previous)],
        }

    def _test(self, version: ModelVersion) -> dict[str, float]:
        run = self.records.run(str(version.run_id or ""))
        found = run.data.metrics if run is not None else {}
        return {key.removeprefix("test_"): value for key, value in sorted(found.items()) if key.startswith("test_")}

    # What data, a commit or an image went into

    def _use(self, version: ModelVersion, execution: Execution | None, **more: Any) -> Use:
        number = str(version.version)
        return Use(
            version=number,
            aliases=self.records.aliases.get(number, []),
            run_id=str(execution.parent.info.run_id) if execution is not None else str(version.run_id or ""),
            at=_time(version.creation_timestamp),
            test=self._test(version),
            data=(execution.raw if execution is not None else "") or version.tags.get("dvc.raw", ""),
            commit=version.tags.get(RESULT) or version.tags.get("git.commit", ""),
            **more,
        )

    def _use_of_run(self, execution: Execution, **more: Any) -> Use:
        tested = execution.parent.data.metrics
        return Use(
            version="",
            aliases=[],
            run_id=str(execution.parent.info.run_id),
            at=_time(execution.parent.info.start_time),
            test={key.removeprefix("test_"): value for key, value in tested.items() if key.startswith("test_")},
            data=execution.raw,
            commit=execution.parent.data.tags.get("git.commit", ""),
            **more,
        )

    def _all(self) -> Iterator[tuple[ModelVersion | None, Execution | None, Callable[..., Use]]]:
        """Every version, and every run in which something was learned and of which no version came; how to tell."""
        told = set()
        for version in self.records.versions:
            execution = self.records.of_version(version)
            if execution is not None:
                told.add(execution.parent.info.run_id)
            yield version, execution, lambda v=version, e=execution, **more: self._use(v, e, **more)
        for execution in self.records.executions():
            if execution.parent.info.run_id not in told:
                yield None, execution, lambda e=execution, **more: self._use_of_run(e, **more)

    def _places(self, digest: str) -> list[str]:
        """What a hash was of, in any run: `data/raw`, `models/head`, ..."""
        tags = [
            key.split(".", 2)[2]
            for run in self.records.runs()
            for key, value in run.data.tags.items()
            if value == digest and key.startswith(("dvc.dep.", "dvc.out."))
        ]
        return sorted(set(tags))

    def _data(self, digest: str, asked_for: str) -> Document:
        """Which versions and runs read or wrote data of a hash."""
        places = self._places(digest)
        if not places:
            raise _unknown(asked_for, self.records)
        found, listed = [], None
        for version, execution, use in self._all():
            if execution is not None and any(execution.hash_of(place) == digest for place in places):
                found.append(use())
                if listed is None and {"data/raw", "data/manifest"} & set(places):
                    listed = self._lists.whole(execution, version)
        images = _images(listed) if listed is not None else {}
        return {"kind": "data", "asked_for": asked_for, "hash": digest, "places": places, **images, **_uses(found)}

    def _commit(self, commit: str, asked_for: str) -> Document:
        """Which versions and runs were made of the code of a commit."""
        found = [
            use()
            for version, execution, use in self._all()
            if commit in _commits_of(version, execution)
        ]  # fmt: skip
        return {"kind": "commit", "asked_for": asked_for, "commit": commit, **_uses(found)}

    def _image_by_path(self, what: str) -> Document:
        """A path as manifests name it, with all that has been there; or else a file."""
        uses, _ = self._uses_of_image([], [what])
        if uses:
            return self._image(what, sorted({use.image_id for use in uses} - {""}), [what])
        for file in (Path(what), self._root / what, self._root / "data" / "raw" / what):
            if file.is_file():
                return self._image(what, [md5(file)], [])
        raise _unknown(what, self.records)

    def _image(self, asked_for: str, image_ids: list[str], paths: list[str]) -> Document:
        """Which versions and runs had an image, and as what."""
        found, untold = self._uses_of_image(image_ids, paths)
        return {
            "kind": "image",
            "asked_for": asked_for,
            "image_ids": image_ids,
            "paths": sorted({use.path for use in found} - {""}),
            **_uses(found),
            "asked_versions": len(self.records.versions),
            "untold": untold,
        }

    def _uses_of_image(self, image_ids: list[str], paths: list[str]) -> tuple[list[Use], list[str]]:
        """The uses, and the versions of which nothing tells which images they had."""
        found, untold = [], []
        for version, execution, use in self._all():
            known = self._lists.some(execution, version, image_ids, paths)
            if known is None:
                if version is not None:
                    untold.append(str(version.version))
                continue
            for row in known.table.to_dict("records"):
                of_image = {key: str(row[key]) for key in ("split", "label", "path", "image_id")}
                why = str(row["reason"]) if known.exact else known.note
                learned = row["split"] in _fitted_to(version, execution)
                found.append(use(**of_image, learned=learned, exact=known.exact, why=why))
        return found, untold


def _uses(found: list[Use]) -> Document:
    return {
        "versions": [asdict(use) for use in found if use.version],
        "runs": [asdict(use) for use in found if not use.version],
    }


def _fitted_to(version: ModelVersion | None, execution: Execution | None) -> set[str]:
    """The splits to which the weights were fitted: if the head is refitted once it is chosen, validation too."""
    head = execution.stages.get("head") if execution is not None else None
    refitted = head is not None and head.data.params.get("head.refit") == "True"
    frozen = version is None or version.tags.get("candidate") == "head"
    return {"train", SEEN, *(["val"] if refitted and frozen else [])}


def _commits_of(version: ModelVersion | None, execution: Execution | None) -> set[str]:
    tags = [version.tags.get(key, "") for key in ("git.commit", RESULT)] if version is not None else []
    return {*tags, execution.parent.data.tags.get("git.commit", "") if execution is not None else ""}


def _unknown(what: str, records: Records) -> GraftError:
    aliases = sorted(alias for of in records.aliases.values() for alias in of)
    return GraftError(
        "nothing that is recorded has this name, id or hash, and there is no such file",
        got=what,
        allowed=f"{records.name}@ALIAS, {records.name}/NUMBER, an alias ({', '.join(aliases) or 'none yet'}) or "
        "a number; a run's id; a hash of data (<md5>.dir), of an image, or a commit; an image's path",
        todo=nearest(what, aliases) or "see the runs and versions with `graft ui`",
    )


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _tag(run: Run | None, key: str) -> str:
    return str(run.data.tags.get(key, "")) if run is not None else ""


def _params(run: Run) -> dict[str, str]:
    """A stage's parameters, without its name before each."""
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
            "at": _time(run.info.start_time),
            "seconds": run.data.metrics.get("seconds"),
            "commit": run.data.tags.get("git.commit", ""),
        }
        for stage, run in execution.stages.items()
    ]


def _environment(of_run: Mapping[str, str], stages: Mapping[str, Run]) -> Document:
    """Of the execution; and of reused stages what was another version then."""
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


def _images(listed: ImageList) -> Document:
    """How many images there were, by split and class; without an exact list only by what the package tells."""
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
