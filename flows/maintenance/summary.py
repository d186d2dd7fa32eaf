"""`graft summary`: the results of the last run, from the files that the stages wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.data.task import main_in

from ..registry.registration import read_registration
from ..tracking.store import own_store

RATES = ("detection_rate", "false_alarm_rate")
"""What a test of anomaly detection has besides the main metric, with intervals."""


def summarise(root: Path) -> dict[str, Any]:
    """The metrics of the last run of each stage.

    Raises:
        GraftError: a stage has not run yet.
    """
    paths = Paths(root)
    metrics = {stage: read_json(paths.metrics(stage)) for stage in STAGES if paths.metrics(stage).is_file()}
    missing = [stage for stage in STAGES if stage not in metrics]
    if missing:
        raise GraftError(
            "the pipeline has not run to its end", got=f"no results of {', '.join(missing)}", todo="run `graft repro`"
        )
    test, data = metrics["evaluate"], metrics["preprocess"]
    registered = read_registration(paths)
    return {
        "task": test["task"],
        **{key: test[key] for key in main_in(test).keys},
        **{name: test[name] for key in RATES for name in (key, f"{key}_low", f"{key}_high") if name in test},
        **{key: test[key] for key in ("detection", "pixel_auroc", "au_pro") if key in test},
        "candidate": test["candidate"],
        "images": data["images"],
        **{key: data[key] for key in ("classes", "target_min", "target_max") if key in data},
        "rejected": data["rejected"],
        "test_images": test["images"],
        "images_per_second": metrics["features"]["images_per_second"],
        "unseen": metrics["features"].get("unseen"),  # not in results from before it was recorded
        "seconds": {stage: metrics[stage]["seconds"] for stage in STAGES},
        "audit": _passed_limits(paths),
        "finetune": read_json(paths.finetune / "decision.json")["reason"] if paths.finetune.is_dir() else "",
        "model": f"{registered.name} version {registered.version}" if registered else "",
        "model_note": "" if registered else _model_note(root),  # asking MLflow takes seconds
        "report": paths.relative(paths.report / "index.html"),
    }


def _passed_limits(paths: Paths) -> list[str]:
    """The audit's checks that found more than their limits allow."""
    if not (paths.audit / "audit.json").is_file():
        return []
    checks = read_json(paths.audit / "audit.json")["checks"]
    return [
        f"{check['found']:,} {name.replace('_', ' ')}"
        for name, check in checks.items()
        if check["state"] in ("warn", "fail")
    ]


def _model_note(root: Path) -> str:
    """Why models/package is not the challenger, for a package whose registration is not known without MLflow.

    Only the project's own store is asked: it answers at once.
    """
    own = own_store(root)
    if own is None or not own.is_file():
        return ""
    from ..registry.registering import misplaced_challenger
    from ..tracking.tracker import Tracker

    wrong = misplaced_challenger(Tracker(root))
    return f"{wrong}: see `graft doctor`" if wrong else ""
