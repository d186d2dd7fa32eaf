"""Packs of made-up features."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft.tasks.audit.probe import Probe
from graft.tasks.common.data.feature_set import FeatureSet

DIMENSION = 16


@pytest.fixture(scope="session")
def pack_of():
    """pack_of(features, labels, split=..., group=..., task=..., views=...) -> a FeatureSet of these rows."""

    def make(features_ND, labels, split="train", group=None, task="classification", views=None):
        n = len(labels)
        index = pd.DataFrame(
            {
                "image_id": [f"{i:032x}" for i in range(n)],
                "path": [f"{i:04}.png" for i in range(n)],
                "label": pd.array([str(label) for label in labels], "string"),
                "task": task,
                "split": split,
                "group": pd.array(group if group is not None else [None] * n, "string"),
                "weight": 1.0,
                "pixels": [f"{i:032x}" for i in range(n)],
            }
        )
        features_ND = np.asarray(features_ND, np.float32)
        views_VD = np.zeros((0, features_ND.shape[1]), np.float32) if views is None else np.asarray(views, np.float32)
        return FeatureSet(features_ND, views_VD, index, {"form": {"channels": 3}})

    return make


@pytest.fixture(scope="session")
def clouds():
    """clouds(count, classes, spread, seed) -> (features, labels): so many images of each class around its centre."""

    def make(count, classes=3, spread=1.0, seed=0):
        rng = np.random.default_rng(seed)
        centre_KD = 4 * rng.normal(size=(classes, DIMENSION))
        codes = np.repeat(np.arange(classes), count)
        return centre_KD[codes] + spread * rng.normal(size=(len(codes), DIMENSION)), np.array(list("abcdefgh"))[codes]

    return make


@pytest.fixture
def probe_of(tmp_path):
    """probe_of(pack, l2) -> what trains on parts of the pack."""

    def make(pack, l2=0.01):
        return Probe.of(pack, l2, Path(tmp_path))

    return make
