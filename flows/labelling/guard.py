"""Whether `auto` may choose here: the simulation on the project's own labels, kept until labels or features change."""

from __future__ import annotations

from pathlib import Path

from graft.tasks.common.core.files import digest, json_digest, read_json, write_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import FeatureSet, read_feature_set
from graft.tasks.common.data.units import units
from graft.tasks.labelling import probe, simulation, strategies
from graft.tasks.labelling.simulation import Simulation, simulate

LABELS = ["image_id", "label", "split", "group", "pixels"]
"""Of the feature set, what the simulation depends on besides the features."""

CODE = (probe, simulation, strategies)
"""The modules on which its result depends."""


def simulated(root: Path) -> Simulation | None:
    """What the simulation found for the last run's labels; None before the first run.

    It takes seconds the first time, and is read from .graft/cache/labelling afterwards.
    """
    paths = Paths(root)
    if not (paths.features / "fingerprint.json").is_file():
        return None
    pack = read_feature_set(paths.features)
    file = paths.cache / "labelling" / f"{_key(pack)}.json"
    if file.is_file():
        return Simulation(**read_json(file))
    found = simulate(pack, units(pack.index)[0])
    write_json(file, found.facts())
    return found


def _key(pack: FeatureSet) -> str:
    labels = pack.index[LABELS].to_csv(index=False)
    code = [digest(Path(str(module.__file__)).read_bytes()) for module in CODE]
    return json_digest({"features": pack.fingerprint["digest"], "labels": digest(labels.encode()), "code": code})
