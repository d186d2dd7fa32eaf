"""The plots of anomaly scores, and their tables."""

import warnings

import numpy as np
import pandas as pd
import pytest

from graft.tasks.evaluate.anomaly_metrics import Inspected, kind_metrics
from graft.tasks.evaluate.anomaly_plots import detection_plot, detection_table, score_bins, score_table, scores_plot


def inspected(scores, labels, threshold=1.0):
    index = pd.DataFrame({"image_id": "x", "path": [f"{n}.png" for n in range(len(labels))], "label": labels})
    score_N = np.asarray(scores, np.float64)
    return Inspected(index, score_N, np.full(len(labels), 0.5), threshold, np.arange(len(labels)))


RNG = np.random.default_rng(0)
CASES = {
    "near": inspected(RNG.uniform(0.5, 2, 40), ["good", "hole"] * 20),
    "far": inspected(np.exp(RNG.uniform(-1, 5, 40)), ["good", "hole"] * 20),
    "below": inspected(RNG.uniform(0.1, 0.3, 40), ["good"] * 40),
    "above": inspected(RNG.uniform(2, 3, 40), ["hole"] * 40),
    "constant": inspected([0.0] * 10, ["good", "crack"] * 5, threshold=0.0),
    "one": inspected([3.0], ["good"]),
    "negative": inspected(RNG.uniform(-3, 2, 20), ["good", "crack"] * 10),
}


@pytest.mark.parametrize("case", CASES)
def test_every_score_is_in_the_histogram_and_the_threshold_is_an_edge(case):
    found = CASES[case]
    edges, table = score_bins(found), score_table(found)
    assert (np.diff(edges) > 0).all()
    assert np.abs(edges - found.threshold).min() < 1e-9
    assert table["good"].sum() == (~found.defect).sum()
    assert table["defect"].sum() == found.defect.sum()


@pytest.mark.parametrize("case", CASES)
def test_every_histogram_is_drawn_without_a_warning(case, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores_plot(CASES[case], tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 1000


@pytest.mark.parametrize("kinds", [1, 3, 12])
def test_the_curves_of_the_kinds_of_defect_are_drawn(kinds, tmp_path):
    labels = ["good"] * 20 + [f"kind {k}" for k in range(kinds) for _ in range(3)]
    found = inspected(RNG.uniform(0, 2, len(labels)), labels)
    for name in ("a.png", "b.png"):
        detection_plot(found, kind_metrics(found, 0.95), 0.5, tmp_path / name)
        scores_plot(found, tmp_path / f"scores-{name}")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_table_of_the_curve_starts_at_no_alarm_and_ends_with_all():
    table = detection_table(CASES["near"])
    assert table.iloc[0].tolist() == [0, 0]
    assert table.iloc[-1].tolist() == [1, 1]
    assert table["detection_rate"].is_monotonic_increasing


@pytest.mark.parametrize("case", ["below", "above"])
def test_images_of_one_kind_have_no_curve(case):
    assert list(detection_table(CASES[case]).columns) == ["false_alarm_rate", "detection_rate"]
    assert detection_table(CASES[case]).empty
