"""What rank, compare and drift have in common: settings from params.yaml, and where a result comes from and goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.paths import Paths
from graft.tasks.head.selection import deciding_metric

from ..runtime.params import Params, check_metric
from ..versioning import dvc, git


def provenance(paths: Paths, study: str, run_id: str) -> dict[str, Any]:
    """The keys that every study's JSON has: images, commit, files and MLflow run."""
    folder = paths.state / study
    return {
        "dataset": dvc.raw_hash(paths.root),
        "commit": git.git_state(paths.root).commit,
        "file": str(folder / f"{study}.json"),
        "plot": str(folder / f"{study}.png"),
        "mlflow_run_id": run_id,
    }


def metric_of_studies(asked: str | None, settings: Params) -> str:
    """The key of the metric: the one that was asked for, otherwise that of `gate.metric`.

    Raises:
        ParamsError: it is not a metric of the task, or models of the task are not compared by studies.
    """
    if settings.head.task in ("anomaly", "reconstruction"):
        raise ParamsError(
            "backbones and methods are not compared for this task",
            got=f"head.task: {settings.head.task}",
            allowed="head.task: classification | multilabel | regression",
            todo="run the pipeline with one backbone after the other; metrics/evaluate.json has the metrics of each",
        )
    check_metric(asked or "auto", settings.head, "--metric")
    wanted = asked or settings.gate.metric
    return deciding_metric(settings.head, settings.head.task) if wanted == "auto" else wanted


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def end_lines(found: dict[str, Any], left_out: dict[str, str]) -> Iterator[str]:
    """What was left out and why, and where plot and metrics are."""
    yield from (f"{'left out':<9} {name}: {reason}" for name, reason in left_out.items())
    yield f"{'plot':<9} {found['plot']}"
    yield f"{'metrics':<9} {found['file']}"
