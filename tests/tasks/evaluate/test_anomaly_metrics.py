"""What a threshold finds and misses, with and without defects and good images in the test."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from graft.tasks.evaluate.anomaly_metrics import UNKNOWN, Inspected, detection, image_metrics, kind_metrics


def inspected(scores, labels, threshold=1.0):
    index = pd.DataFrame({"image_id": "x", "path": [f"{n:03}.png" for n in range(len(labels))], "label": labels})
    index["mask"] = None
    score_N = np.asarray(scores, np.float64)
    return Inspected(index, score_N, 1 / (1 + score_N), threshold, np.arange(len(labels)))


MIXED = inspected([0.2, 0.5, 1.2, 0.9, 1.5, 3.0, 0.4], ["good", "good", "good", "hole", "hole", "crack", "crack"])


def test_rates_count_scores_above_the_threshold():
    found = image_metrics(MIXED, 0.95)
    assert (found["good_images"], found["false_alarms"], found["false_alarm_rate"]) == (3, 1, 1 / 3)
    assert (found["defect_images"], found["detected"], found["detection_rate"]) == (4, 2, 0.5)
    ends = binomtest(1, 3).proportion_ci(method="wilson")
    assert (found["false_alarm_rate_low"], found["false_alarm_rate_high"]) == pytest.approx(tuple(ends))


def test_a_score_at_the_threshold_is_no_alarm():
    assert image_metrics(inspected([1.0, 2.0], ["good", "hole"]), 0.95)["false_alarms"] == 0


def test_each_kind_of_defect_is_ranked_against_all_good_images():
    kinds = kind_metrics(MIXED, 0.95)
    assert list(kinds) == ["crack", "hole"]
    assert (kinds["hole"]["images"], kinds["hole"]["detected"], kinds["hole"]["detection_rate"]) == (2, 1, 0.5)
    assert kinds["hole"]["auroc"] == pytest.approx(5 / 6)
    assert kinds["crack"]["auroc"] == pytest.approx(4 / 6)


def test_without_a_defect_detection_is_unknown_and_false_alarms_are_counted():
    good = inspected([0.1, 0.2, 1.4], ["good"] * 3)
    found = image_metrics(good, 0.95)
    assert (found["false_alarms"], found["defect_images"]) == (1, 0)
    unknown = ("auroc", "average_precision", "detection_rate")
    assert {found[f"{name}{end}"] for name in unknown for end in ("", "_low", "_high")} == {None}
    assert (kind_metrics(good, 0.95), detection(good)) == ({}, UNKNOWN)


def test_without_a_good_image_false_alarms_are_unknown():
    found = image_metrics(inspected([0.1, 2.0], ["hole", "hole"]), 0.95)
    assert (found["false_alarm_rate"], found["auroc"], found["detection_rate"]) == (None, None, 0.5)
    assert kind_metrics(inspected([0.1, 2.0], ["hole", "hole"]), 0.95)["hole"]["auroc"] is None


def test_one_defect_is_said_to_be_one():
    one = inspected([0.1, 0.2, 2.0], ["good", "good", "hole"])
    found = image_metrics(one, 0.95)
    assert (found["auroc"], found["detected"], detection(one)) == (1.0, 1, "measured on 1 image with hole")
    assert found["auroc_low"] < 0.6


@pytest.mark.parametrize("labels", [["good"] * 4, ["hole"] * 4, ["good", "good", "hole", "hole"]])
def test_constant_images_have_metrics_that_are_json(labels):
    found = image_metrics(inspected([0.0] * 4, labels, threshold=0.0), 0.95)
    assert found["auroc"] in (None, 0.5)
    assert "NaN" not in json.dumps(found)
