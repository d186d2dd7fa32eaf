"""`graft drift` for a model whose features are maps: their means are compared, from the cache or computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graft.flows.studies.drift import Today, features_of
from graft.tasks.common.core.files import md5
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.feature_cache.segments import FeatureCache, ids_of
from graft.tasks.register.reference_set import Reference
from graft.tasks.register.serving import ImageClassifier


def test_means_are_those_of_the_maps_whether_cached_or_computed(anomalies: Path, tmp_path: Path) -> None:
    files, model, paths = (
        sorted((anomalies / "good").iterdir())[:6],
        ImageClassifier(anomalies / "package"),
        Paths(tmp_path),
    )
    ids, form, maps_ND = ids_of([md5(file) for file in files]), model.eyes.form, model.features(files)
    assert form is not None
    with FeatureCache(paths.cache / "features" / "known", form.dimension, "float16") as cache:
        cache.add(ids[:3], maps_ND[:3] + 1)  # so that it can be told which were read
    none = np.empty(0, "V16")
    reference = Reference(np.zeros((0, form.channels), np.float32), np.empty(0, np.int64), none, none, "known")
    today = Today([file.name for file in files], files, ids, np.arange(6), "six pictures")

    found_NC = features_of(today, reference, anomalies / "package", paths)

    expected_NC = form.means(maps_ND)
    expected_NC[:3] += 1
    assert np.allclose(found_NC, expected_NC, atol=1e-2)
