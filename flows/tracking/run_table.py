"""Makes executions comparable in MLflow's run table: parameters, test metrics and pictures on the parent run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from PIL import Image

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.eyes import each, size_of

PARAMS: dict[str, tuple[str, ...]] = {
    "preprocess": ("preprocess.seed",),
    "features": ("features.backbone", "features.weights", "features.views"),
    "head": ("head.task", "head.kind"),
    "finetune": ("finetune.mode", "finetune.layers"),
}
"""Stage -> the parameters that are copied to the parent."""

SETTINGS = ("l2", "k", "epochs", "dropout", "weight_decay")
"""Hyperparameters that `head` may have chosen, by the names of its metrics. With a head for each of several backbones,
their numbers follow the names."""

TIMES = ("seconds", "startup_seconds")
"""Metrics of the stage's process, not of the model."""

LARGEST = 900
"""Pixels of the longer side of a picture in MLflow's comparison; the artifact has the full size."""


def carry(client: MlflowClient, parent: Run, stage: str, run: Run, paths: Paths) -> None:
    """Copies what a stage contributes to the run table to the parent; parameters that exist stay."""
    known = parent.data.params
    params = [Param(key, text) for key, text in _params(stage, run, paths).items() if key not in known]
    now = run.info.end_time or run.info.start_time
    tested = run.data.metrics if stage == "evaluate" else {}
    metrics = [Metric(key, value, now, 0) for key, value in tested.items() if key not in TIMES]
    for start in range(0, max(len(metrics), 1), 900):
        client.log_batch(parent.info.run_id, metrics[start : start + 900], [] if start else params)


def _params(stage: str, run: Run, paths: Paths) -> dict[str, str]:
    found = {key: run.data.params[key] for key in PARAMS.get(stage, ()) if key in run.data.params}
    fingerprint = paths.features / "fingerprint.json"
    if stage == "features" and fingerprint.is_file():
        found["features.image_size"] = ", ".join(dict.fromkeys(map(size_of, each(read_json(fingerprint)))))
    if stage == "head":
        names = [key for name in SETTINGS for key in sorted(run.data.metrics) if re.fullmatch(rf"{name}(_\d+)?", key)]
        chosen = [f"{name}={run.data.metrics[name]:g}" for name in names]
        found["head.chosen"] = " ".join([run.data.tags.get("kind", ""), *chosen])
    if stage == "finetune":
        found["finetune.chosen"] = run.data.tags.get("chosen", "")
    return found


_background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
_unfinished: list[Future[None]] = []


def log_pictures(client: MlflowClient, run_ids: Sequence[str], stage: str, files: Iterable[Path]) -> None:
    """Logs the PNG files as images of all runs in the background; see `await_pictures`."""
    for file in files:
        if file.suffix == ".png":
            _unfinished.append(_background.submit(_log, client, run_ids, f"{stage}-{file.stem}", _small(file)))


def await_pictures() -> None:
    """Waits until every picture is logged; one that MLflow refuses is named on standard error."""
    while _unfinished:
        error = _unfinished.pop().exception()
        if error is not None:
            print(f"warning: a picture was not logged to MLflow: {error}", file=sys.stderr, flush=True)


def _log(client: MlflowClient, run_ids: Sequence[str], key: str, picture: Image.Image) -> None:
    for run_id in run_ids:
        client.log_image(run_id, picture, key=key, step=0)


def _small(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((LARGEST, LARGEST))
    return picture
