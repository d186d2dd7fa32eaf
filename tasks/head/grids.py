"""Each kind of head: its tasks, its grid of candidates, and the estimator of one candidate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..common.core.errors import ParamsError
from ..common.data.manifest import Task
from . import knn, logistic, mlp, ridge
from .estimator import Estimator, Walk
from .params import HeadParams

Kind = Literal["logistic", "knn", "ridge", "mlp"]


def kind_of(params: HeadParams, task: Task) -> Kind:
    """`auto` is logistic regression for classes and ridge regression for numbers.

    Raises:
        ParamsError: the kind does not support the task.
    """
    if params.kind == "auto":
        return "ridge" if task == "regression" else "logistic"
    if params.kind == "logistic" and task == "regression":
        raise ParamsError(
            "`head.kind`: logistic regression predicts classes, not numbers",
            got="logistic, where `head.task` is regression",
            allowed="auto | ridge | knn | mlp",
            todo="set `head.kind: auto`",
        )
    if params.kind == "gaussian" or params.kind == "patches" or params.kind == "subspace":
        raise ParamsError(
            "`head.kind`: this kind scores anomalies",
            got=f"{params.kind}, where `head.task` is {task}",
            allowed="auto | logistic | ridge | knn | mlp",
            todo="set `head.kind: auto`, or `head.task: anomaly`",
        )
    return params.kind


def walks_of(
    params: HeadParams, kind: Kind, classes: list[str], task: Task, scratch: Path | None
) -> tuple[list[Walk], int, int]:
    """(the grid, its largest number of candidates, the patience of a walk)."""
    if kind == "knn":
        ks = params.knn_k
        return [knn.path(classes, task, ks, params.knn_temperature)], len(ks), len(ks)
    if kind == "mlp":
        grid = [
            mlp.path(classes, task, _mlp_fixed(params), {"dropout": dropout, "weight_decay": decay}, params.mlp_epochs)
            for decay in params.mlp_weight_decay
            for dropout in params.mlp_dropout
        ]
        return grid, len(grid) * params.mlp_epochs, params.mlp_patience
    strengths = np.geomspace(params.l2_max, params.l2_min, params.strengths)
    if kind == "ridge":
        return [ridge.path(classes, task, strengths, scratch)], len(strengths), len(strengths)
    walk = logistic.path(classes, task, strengths, params.tolerance, params.max_iterations, scratch)
    return [walk], len(strengths), params.patience


def estimator_of(
    params: HeadParams, kind: Kind, classes: list[str], task: Task, settings: dict[str, Any], scratch: Path | None
) -> Estimator:
    """The estimator that trains the candidate with these settings on other rows."""
    if kind == "knn":
        return knn.NearestNeighbours(classes, task, temperature=params.knn_temperature, **settings)
    if kind == "mlp":
        return mlp.Mlp(classes, task, **_mlp_fixed(params), **settings)
    if kind == "ridge":
        return ridge.Ridge(classes, task, scratch=scratch, **settings)
    return logistic.LogisticRegression(
        classes, task, tolerance=params.tolerance, max_iterations=params.max_iterations, scratch=scratch, **settings
    )


def _mlp_fixed(params: HeadParams) -> dict[str, Any]:
    return {"hidden": params.mlp_hidden, "seed": params.seed}
