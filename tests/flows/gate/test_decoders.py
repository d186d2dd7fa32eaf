"""Decoders that are compared by what they decode."""

import numpy as np
import pandas as pd
import pytest

from graft.flows.gate.contest import Contest
from graft.flows.gate.decoders import why_not
from graft.flows.gate.verdict import judge
from graft.flows.runtime.params import GateParams
from graft.tasks.common.core.files import write_json
from graft.tasks.common.core.paths import Paths


def contest(metric, challenger, champion):
    n = len(challenger)
    return Contest(
        task="reconstruction", metric=metric, classes=[], champion_classes=[], target=np.zeros(n),
        challenger=challenger, champion=champion, unit_N=np.arange(n), earlier_N=np.ones(n, bool), left_out=0,
        latency=(1.0, 1.0),
    )  # fmt: skip


def images(ssim, n=60):
    rng = np.random.default_rng(0)
    return np.stack([rng.normal(25, 1, n), ssim + rng.normal(0, 0.02, n)], axis=1)


def masks(share, n=60):
    marked = np.random.default_rng(1).integers(50, 150, n).astype(float)
    return np.stack([np.floor(share * marked), marked, marked], axis=1)


@pytest.mark.parametrize(("make", "metric"), [(images, "ssim"), (masks, "dice")])
def test_an_equal_decoder_is_promoted(make, metric):
    verdict = judge(contest(metric, make(0.8), make(0.8)), (), GateParams())
    assert verdict.result == "promote"
    assert verdict.metrics[metric] == verdict.metrics[f"champion_{metric}"]


@pytest.mark.parametrize(("make", "metric"), [(images, "ssim"), (masks, "dice")])
def test_a_clearly_worse_decoder_is_refused(make, metric):
    assert judge(contest(metric, make(0.6), make(0.8)), (), GateParams()).result == "refuse"


def test_decoders_of_different_targets_are_not_compared(tmp_path):
    paths = Paths(tmp_path)
    for folder, target in ((paths.head, "mask"), (tmp_path / "champion", "image")):
        folder.mkdir(parents=True)
        write_json(folder / "head.json", {"target": target})
    assert why_not(tmp_path / "champion", paths) == "the champion decodes `head.target: image`, the current model mask"
    assert why_not(paths.head, paths) == ""


def test_test_images_without_a_target_are_left_out(tmp_path):
    from types import SimpleNamespace

    from graft.flows.gate.decoders import challenger

    paths = Paths(tmp_path)
    paths.report.mkdir()
    table = pd.DataFrame({"path": ["b", "a"], "both": [1, 2], "found": [3, 4], "marked": [5, 6]})
    table.to_parquet(paths.report / "predictions.parquet")
    pack = SimpleNamespace(index=pd.DataFrame({"path": ["x", "a", "c", "b"]}), rows=lambda _: np.array([1, 2, 3]))
    assert np.array_equal(challenger(paths, pack), [[2, 4, 6], [np.nan] * 3, [1, 3, 5]], equal_nan=True)
