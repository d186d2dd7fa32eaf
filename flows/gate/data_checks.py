"""Checks of the new images by their features: leaks, suspect labels, drift."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.feature_cache.segments import ids_of
from graft.tasks.preprocess.label_history import given_since, in_words, read_answers, standings
from graft.tasks.register.reference_set import Reference

from ..runtime.params import DriftParams, GateParams, load_params
from ..studies.drift import LEAST, compare_with, features_of, from_manifest, usable
from .champion import Champion
from .contest import Check


def data_checks(paths: Paths, champion: Champion | None) -> tuple[Check, ...]:
    """Leaks into the test split, suspected labels among the new images, and drift.

    Args:
        champion: decides which images are new; None if there is no champion.
    """
    params = load_params(paths.params)
    gate, drift = params.gate, params.drift
    reference = champion.reference if champion is not None else None
    checks = [_leaks(paths, gate), _suspects(paths, reference, gate)]
    answers = given_since(read_answers(paths.labels), _registered(champion))
    if answers:
        since = " since the champion was registered" if champion is not None else ""
        checks.append(Check("labels by people", "noted", f"{in_words(answers)}{since}", "any: reported only"))
    if gate.drift != "off" and champion is not None:
        checks.append(_drift(paths, champion, gate, drift))
    return tuple(checks)


def _registered(champion: Champion | None) -> str:
    """When the champion was registered, ISO 8601; empty without one."""
    if champion is None:
        return ""
    return datetime.fromtimestamp(champion.version.creation_timestamp / 1000, UTC).isoformat()


def _leaks(paths: Paths, params: GateParams) -> Check:
    leaked = pd.read_parquet(paths.audit / "leaked.parquet", columns=["split"])
    count, of = int((leaked["split"] == "test").sum()), int(read_json(paths.metrics("evaluate"))["images"])
    passes = count <= params.max_leaked * of
    found = f"{count:,} of {of:,} test images are copies of training or validation images"
    remedy = "" if passes else "; `graft group-copies` moves them to the split of their originals"
    return Check("leaks", "passed" if passes else "failed", f"{found}{remedy}", f"{params.max_leaked:.1%} or less")


def _suspects(paths: Paths, reference: Reference | None, params: GateParams) -> Check:
    """Among the images added since the champion was trained, or among all without a champion; not among those whose
    label a person has given, who saw the image."""
    allowed = f"{params.max_suspect:.1%} or less"
    pack = read_feature_set(paths.features)
    judged = pack.index.iloc[pack.rows("train", "val")].drop_duplicates("pixels")["image_id"]
    if reference is not None:
        known = np.union1d(reference.seen_ids, reference.held_out_ids)
        judged = judged[~np.isin(ids_of(list(judged)), known)]
    people = {image_id for image_id, one in standings(read_answers(paths.labels)).items() if one.decided is not None}
    judged = judged[~judged.isin(people)]
    if len(judged) < LEAST:
        return Check("labels of new images", "not checked", f"{len(judged):,} new images, fewer than {LEAST}", allowed)
    issues = pd.read_parquet(paths.audit / "label_issues.parquet", columns=["image_id"])["image_id"]
    count = int(judged.isin(set(issues)).sum())
    share = count / len(judged)
    found = f"{count:,} of {len(judged):,} ({share:.1%}) look wrong"
    return Check("labels of new images", "failed" if share > params.max_suspect else "passed", found, allowed)


def _drift(paths: Paths, champion: Champion, gate: GateParams, params: DriftParams) -> Check:
    allowed = "none" if gate.drift == "refuse" else "any: `gate.drift` is note"
    try:
        reference = usable(champion.reference, champion.version)
        today = from_manifest(paths, reference, params)
        found = compare_with(reference, today, features_of(today, reference, champion.package, paths), params)
    except DataError as error:
        return Check("drift", "not checked", f"{error.what} ({error.got})", allowed)
    summary = (
        f"{today.what}: overall shift {found.mmd.value:.3f} (p = {found.mmd.p:.2g}), far from all training images "
        f"{found.far.value:.1%} (p = {found.far.p:.2g})"
    )
    if found.verdict == "none":
        return Check("drift", "passed", summary, allowed)
    return Check("drift", "failed" if gate.drift == "refuse" else "noted", summary, allowed)
