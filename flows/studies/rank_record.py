"""What `graft rank` keeps: rank.json, the plot, and the runs in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graft.tasks.common.core.files import whole_folder, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.record import DatasetRecord, Record
from graft.tasks.common.data.task import LOSS
from graft.tasks.features.params import FeaturesParams
from graft.tasks.head.params import HeadParams
from graft.tasks.studies.combining import Combination, combine
from graft.tasks.studies.held import Held
from graft.tasks.studies.ranking import Standing, fastest_as_good
from graft.tasks.studies.ranking_picture import ranking_picture

from ..runtime import processes
from ..runtime.params import Params
from ..tracking.tracker import Tracker
from .entrant import Entrant
from .study import provenance

KEYS = ("backbone", "weights", "weights_sha256")
"""The keys of `features` that a ranking changes."""


def document(
    standings: Sequence[Standing],
    held: Held,
    entrants: Mapping[str, Entrant],
    failed: dict[str, str],
    counts: dict[str, int],
    settings: Params,
    paths: Paths,
    run_id: str,
) -> dict[str, Any]:
    """What rank.json holds."""
    found: dict[str, Any] = {
        **provenance(paths, "rank", run_id),
        "images": counts,
        "held_out": len(held.target),
        "units": int(held.unit_M.max()) + 1,
        "task": held.task,
        "metric": held.metric,
        "margin": held.margin,
        "confidence": held.confidence,
        "candidates": [_row(one, held, entrants[one.probed.name]) for one in standings],
        "failed": failed,
    }
    if not standings:
        return found
    quick, best = fastest_as_good(standings).probed, standings[0].probed
    for key, name in (("best", best.name), ("fastest_as_good", quick.name)):
        found[key] = {"backbone": name, "params": _to_put([entrants[name].params], settings.features)}
    combined = combine([one.probed for one in standings], held)
    found["combination"] = combined and _combined(combined, best.images_per_second, entrants, settings.features)
    return found


def _row(one: Standing, held: Held, entrant: Entrant) -> dict[str, Any]:
    found, spec, extractor = one.probed, entrant.spec, entrant.job.extractor
    behind, most = one.behind
    return {
        "backbone": found.name,
        "timm": spec.backbone,
        "weights": spec.weights,
        "weights_sha256": spec.weights_sha256,
        "fingerprint": entrant.fingerprint["digest"],
        "computed_by": f"{extractor.engine} {extractor.device} {extractor.precision}",
        **dict(zip(held.named.keys, (found.value, found.low, found.high), strict=True)),
        LOSS[held.task]: found.loss,
        "behind": behind,
        "behind_at_most": most,
        "as_good": one.as_good,
        "more_images": one.more,
        "images_per_second": round(found.images_per_second, 2),
        "measured": found.measured,
        "megabytes": round(found.megabytes, 2),
        "dimension": found.dimension,
        **found.settings,
        "on_front": one.on_front,
    }


def _combined(found: Combination, speed: float, entrants: Mapping[str, Entrant], own: FeaturesParams) -> dict[str, Any]:
    return {
        "backbones": list(found.names),
        "value": found.value,
        "alone": found.alone,
        "gain": found.gain.difference,
        "gain_at_least": found.gain.low,
        "images_per_second": round(1 / found.seconds, 2),
        "cost": round(found.seconds * speed, 2),
        "params": _to_put([entrants[name].params for name in found.names], own),
    }


def _to_put(params: Sequence[FeaturesParams], own: FeaturesParams) -> dict[str, Any]:
    """The keys of `features` in params.yaml that would have to change; empty for the project's own backbone."""
    mine = own.model_dump(mode="json", include=set(KEYS))
    each = [one.model_dump(mode="json", include=set(KEYS)) for one in params]
    wanted = {key: [one[key] for one in each] for key in KEYS}
    same = {key: values[0] if len(set(values)) == 1 and (key != "backbone" or len(each) == 1) else values
            for key, values in wanted.items()}  # fmt: skip
    return {key: same[key] for key in KEYS if same[key] != mine[key]}


def write(found: dict[str, Any], standings: Sequence[Standing], held: Held, paths: Paths) -> None:
    with whole_folder(paths.state / "rank") as folder:
        write_json(folder / "rank.json", found)
        if standings:
            ranking_picture(standings, held, folder / "rank.png")


def record(
    tracker: Tracker,
    found: dict[str, Any],
    candidates: Mapping[str, FeaturesParams],
    head: HeadParams,
    paths: Paths,
) -> None:
    """One child run per candidate, and the summary on the parent."""
    parent, dataset = found["mlflow_run_id"], DatasetRecord("raw", found["images"])
    process, rows = processes.key(processes.me()), {row["backbone"]: row for row in found["candidates"]}
    scores = {found["metric"], f"{found['metric']}_low", f"{found['metric']}_high", LOSS[found["task"]]}
    for name, params in candidates.items():
        row = rows.get(name)
        if row is None and name not in found["failed"]:
            continue  # another name of a ranked candidate
        run_id = tracker.start_candidate(
            name, parent, {"features": params.model_dump(), "head": head.model_dump()}, process
        )
        # As the stages name them in MLflow.
        metrics = {f"val_{key}" if key in scores else key: value for key, value in (row or {}).items()}
        tracker.log_record(run_id, Record(metrics, dataset=dataset), metrics, found["dataset"])
        tracker.end(run_id, "FINISHED" if row else "FAILED", found["failed"].get(name, ""))
    files = [file for file in sorted((paths.state / "rank").iterdir()) if file.is_file()]
    summary: dict[str, Any] = {"candidates": len(rows), "failed": len(found["failed"])}
    facts: dict[str, str] = {key: found[key]["backbone"] for key in ("best", "fastest_as_good") if key in found}
    if rows:
        summary[f"val_{found['metric']}"] = found["candidates"][0][found["metric"]]
    if found.get("combination"):
        facts["combination"] = ", ".join(found["combination"]["backbones"])
    tracker.log_record(parent, Record({}, facts=facts, files=files, dataset=dataset), summary, found["dataset"])
