"""Which versions and runs were made from an image, from data or from a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from .composition import iso_time
from .executions import RESULT, Execution, Records
from .manifests import SEEN, ImageLists


@dataclass(frozen=True)
class Use:
    """That an image, data or a commit went into a version, or into a run that made no version.

    Attributes:
        split: of the image: train, val, test, rejected, seen or held out; empty where the question is not of an image.
        learned: whether the weights were fitted to the image; after a refit this includes validation images.
        exact: whether the split is known.
        why: why the image was rejected, or why its split is not known.
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


class Uses:
    """All versions of a project, and all its training runs that made none."""

    def __init__(self, records: Records, lists: ImageLists) -> None:
        self._records, self._lists = records, lists

    def of_version(self, version: ModelVersion, execution: Execution | None, **more: Any) -> Use:
        number = str(version.version)
        return Use(
            version=number,
            aliases=self._records.aliases.get(number, []),
            run_id=str(execution.parent.info.run_id) if execution is not None else str(version.run_id or ""),
            at=iso_time(version.creation_timestamp),
            test=test_metrics(self._records, version),
            data=(execution.raw if execution is not None else "") or version.tags.get("dvc.raw", ""),
            commit=version.tags.get(RESULT) or version.tags.get("git.commit", ""),
            **more,
        )

    def of_run(self, execution: Execution, **more: Any) -> Use:
        return Use(
            version="",
            aliases=[],
            run_id=str(execution.parent.info.run_id),
            at=iso_time(execution.parent.info.start_time),
            test=_tested(execution.parent.data.metrics),
            data=execution.raw,
            commit=execution.parent.data.tags.get("git.commit", ""),
            **more,
        )

    def all(self) -> Iterator[tuple[ModelVersion | None, Execution | None, Callable[..., Use]]]:
        """Every version, then every training run that made none; each with the function that makes its `Use`."""
        told = set()
        for version in self._records.versions:
            execution = self._records.of_version(version)
            if execution is not None:
                told.add(execution.parent.info.run_id)
            yield version, execution, lambda v=version, e=execution, **more: self.of_version(v, e, **more)
        for execution in self._records.executions():
            if execution.parent.info.run_id not in told:
                yield None, execution, lambda e=execution, **more: self.of_run(e, **more)

    def of_image(self, image_ids: list[str], paths: list[str]) -> tuple[list[Use], list[str]]:
        """The uses of an image, and the versions whose images are not known."""
        found, unknown = [], []
        for version, execution, use in self.all():
            listed = self._lists.some(execution, version, image_ids, paths)
            if listed is None:
                if version is not None:
                    unknown.append(str(version.version))
                continue
            for row in listed.table.to_dict("records"):
                of_image = {key: str(row[key]) for key in ("split", "label", "path", "image_id")}
                why = str(row["reason"]) if listed.exact else listed.note
                learned = row["split"] in fitted_splits(version, execution)
                found.append(use(**of_image, learned=learned, exact=listed.exact, why=why))
        return found, unknown


def by_kind(found: list[Use]) -> dict[str, Any]:
    return {
        "versions": [asdict(use) for use in found if use.version],
        "runs": [asdict(use) for use in found if not use.version],
    }


def test_metrics(records: Records, version: ModelVersion) -> dict[str, float]:
    run = records.run(str(version.run_id or ""))
    return _tested(run.data.metrics) if run is not None else {}


def _tested(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key.removeprefix("test_"): value for key, value in sorted(metrics.items()) if key.startswith("test_")}


def fitted_splits(version: ModelVersion | None, execution: Execution | None) -> set[str]:
    """The splits that the weights were fitted to: including validation if the chosen candidate was refitted."""
    stages = execution.stages if execution is not None else {}
    if version is None or version.tags.get("candidate") == "head":
        refitted = "head" in stages and stages["head"].data.params.get("head.refit") == "True"
    else:
        refitted = "finetune" in stages and stages["finetune"].data.tags.get("refitted") == "True"
    return {"train", SEEN, *(["val"] if refitted else [])}
