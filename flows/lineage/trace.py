"""`graft trace`: what a registered model was made of, and which models an image, data or a commit went into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.core.errors import GraftError, nearest
from graft.tasks.common.images.shards import hash_of, is_stored
from graft.tasks.preprocess.label_history import Answer, read_answers

from ..registry import ledger
from .composition import composition_of, image_counts, iso_time
from .executions import RESULT, RUN_DIGITS, Execution, Records
from .manifests import ImageLists
from .uses import Uses, by_kind, test_metrics

Document = dict[str, Any]
"""An answer; `kind` is `model`, `run`, `data`, `image` or `commit`."""

HEX = re.compile(r"[0-9a-f]{7,40}")
WHOLE = 32
"""Hexadecimal digits of an md5, and of the id of a run."""


def trace(root: Path, what: str) -> Document:
    """Everything recorded about a version, a run, a hash or an image.

    Args:
        what: NAME@alias, NAME/3, an alias or a number; an MLflow run's id or its beginning; DVC's hash of a folder
            (<md5>.dir); an image's md5 or path; a git commit.

    Raises:
        GraftError: nothing recorded matches it, or several things do.
    """
    return Lineage(root).trace(what)


class Lineage:
    """Answers questions about a project's models; MLflow is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.records = Records(root)
        self._lists = ImageLists(self.records.tracker)
        self._uses = Uses(self.records, self._lists)

    @cached_property
    def _answers(self) -> list[Answer]:
        return read_answers(self.records.tracker.paths.labels)

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
        """The one thing whose id begins with these digits; None if there is none.

        Raises:
            GraftError: there are several.
        """
        answers = list(self._meanings(what))
        if len(answers) > 1:
            raise GraftError(
                f"several ids begin with {what}",
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
            if image["versions"] or image["runs"] or image["answers"]:
                yield f"image {what}", lambda: image
            if self._places(f"{what}.dir"):
                yield f"data {what}.dir", lambda: self._data(f"{what}.dir", what)

    def _commits(self, beginning: str) -> list[str]:
        tags = [run.data.tags.get("git.commit", "") for run in self.records.runs()]
        tags += [version.tags.get(RESULT, "") for version in self.records.versions]
        return sorted({commit for commit in tags if commit.startswith(beginning)})

    # A version, or a run

    def model(self, version: ModelVersion, asked_for: str) -> Document:
        """Everything recorded about a version."""
        execution = self.records.of_version(version)
        listed = self._lists.whole(execution, version)
        number = str(version.version)
        return {
            "kind": "model",
            "asked_for": asked_for,
            "name": version.name,
            "version": number,
            "aliases": self.records.aliases.get(number, []),
            "registered": iso_time(version.creation_timestamp),
            "test": test_metrics(self.records, version),
            "task": version.tags.get("task", ""),
            "candidate": version.tags.get("candidate", ""),
            "register_run_id": str(version.run_id or ""),
            **composition_of(self.records, execution, listed, version),
            "history": self._history(number),
        }

    def _run(self, run: Run, asked_for: str) -> Document:
        """A run of the pipeline, or of one stage: its whole execution, and the versions made by it."""
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
            "started": iso_time(run.info.start_time),
            "versions": [asdict(self._uses.of_version(version, execution)) for version in made],
            **composition_of(self.records, execution, listed, made[0] if made else None, run),
        }

    def _history(self, number: str) -> Document:
        """The ledger's entries about a version."""
        all_entries = ledger.entries(self.records.tracker, self.records.name)
        moved = [entry for entry in all_entries if entry.what in ledger.CHAMPIONS]
        came = [entry for entry in moved if entry.version == number]
        went = [entry for entry in moved if entry.previous == number and entry.version != number]
        return {
            "replaced": asdict(came[-1]) if came and came[-1].previous else None,
            "replaced_by": asdict(went[-1]) if went else None,
            "entries": [asdict(entry) for entry in all_entries if number in (entry.version, entry.previous)],
        }

    # What data, a commit or an image went into

    def _places(self, digest: str) -> list[str]:
        """The paths that had a hash in any run: `data/raw`, `models/head`, ..."""
        tags = [
            key.split(".", 2)[2]
            for run in self.records.runs()
            for key, value in run.data.tags.items()
            if value == digest and key.startswith(("dvc.dep.", "dvc.out."))
        ]
        return sorted(set(tags))

    def _data(self, digest: str, asked_for: str) -> Document:
        """The versions and runs that read or wrote data with a hash."""
        places = self._places(digest)
        if not places:
            raise _unknown(asked_for, self.records)
        found, listed = [], None
        for version, execution, use in self._uses.all():
            if execution is not None and any(execution.hash_of(place) == digest for place in places):
                found.append(use())
                if listed is None and {"data/raw", "data/manifest"} & set(places):
                    listed = self._lists.whole(execution, version)
        images = image_counts(listed) if listed is not None else {}
        return {"kind": "data", "asked_for": asked_for, "hash": digest, "places": places, **images, **by_kind(found)}

    def _commit(self, commit: str, asked_for: str) -> Document:
        """The versions and runs made with the code of a commit."""
        found = [
            use() for version, execution, use in self._uses.all() if commit in _commits_of(version, execution)
        ]  # fmt: skip
        return {"kind": "commit", "asked_for": asked_for, "commit": commit, **by_kind(found)}

    def _image_by_path(self, what: str) -> Document:
        """Every image that a manifest has had at a path; otherwise a file, by its md5."""
        uses, _ = self._uses.of_image([], [what])
        if uses:
            return self._image(what, sorted({use.image_id for use in uses} - {""}), [what])
        for file in (Path(what), self._root / what, self._root / "data" / "raw" / what):
            if is_stored(file):
                return self._image(what, [hash_of(file)], [])
        raise _unknown(what, self.records)

    def _image(self, asked_for: str, image_ids: list[str], paths: list[str]) -> Document:
        """The versions and runs that had an image, and in which role."""
        found, untold = self._uses.of_image(image_ids, paths)
        return {
            "kind": "image",
            "asked_for": asked_for,
            "image_ids": image_ids,
            "paths": sorted({use.path for use in found} - {""}),
            **by_kind(found),
            "answers": [asdict(answer) for answer in self._answers if answer.image_id in image_ids],
            "asked_versions": len(self.records.versions),
            "untold": untold,
        }


def _commits_of(version: ModelVersion | None, execution: Execution | None) -> set[str]:
    tags = [version.tags.get(key, "") for key in ("git.commit", RESULT)] if version is not None else []
    return {*tags, execution.parent.data.tags.get("git.commit", "") if execution is not None else ""}


def _unknown(what: str, records: Records) -> GraftError:
    aliases = sorted(alias for of in records.aliases.values() for alias in of)
    return GraftError(
        "nothing recorded has this name, id or hash, and there is no such file",
        got=what,
        allowed=f"{records.name}@ALIAS, {records.name}/NUMBER, an alias ({', '.join(aliases) or 'none yet'}) or "
        "a number; a run's id; a hash of data (<md5>.dir), of an image, or a commit; an image's path",
        todo=nearest(what, aliases) or "look up runs and versions with `graft ui`",
    )
