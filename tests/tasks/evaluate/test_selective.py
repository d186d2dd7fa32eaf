import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.evaluate.selective import (
    abstention,
    before_calibration,
    risk_coverage,
    risk_coverage_plot,
)

PROMISED = Calibration(threshold=0.6, max_error=0.25, confidence=0.9)


@pytest.fixture
def predictions():
    table = pd.DataFrame(
        {
            "label": ["a", "a", "b", "b", "b"],
            "predicted": ["a", "b", "b", "b", "a"],
            "score": [0.9, 0.7, 0.8, 0.95, 0.5],
        }
    )
    return table.assign(abstain=table["score"] <= 0.6)


def told(predictions):
    return abstention(predictions, PROMISED, np.arange(5), 0.95)["abstention"]


def test_coverage_and_error_are_counted(predictions):
    found = told(predictions)
    assert (found["answered"], found["coverage"], found["error"]) == (4, 0.8, 0.25)
    assert 0 <= found["error_low"] < 0.25 < found["error_high"] <= 1


def test_the_interval_of_the_error_rate_counts_units(predictions):
    alone = told(predictions)
    grouped = abstention(predictions, PROMISED, np.array([0, 0, 1, 1, 2]), 0.95)["abstention"]
    assert grouped["error"] == alone["error"]
    assert grouped["error_high"] > alone["error_high"]


def test_without_a_threshold_there_is_nothing_to_tell(predictions):
    assert abstention(predictions.drop(columns="abstain"), Calibration(), np.arange(5), 0.95) == {}


def test_where_no_image_is_answered_there_is_no_error(predictions):
    found = told(predictions.assign(abstain=True))
    assert (found["answered"], found["coverage"]) == (0, 0.0)
    assert "error" not in found


def test_the_curve_counts_errors_from_the_most_confident_image_on(predictions):
    curve = risk_coverage(predictions)
    assert list(curve["coverage"]) == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert list(curve["error"]) == pytest.approx([0, 0, 0, 0.25, 0.4])


def test_a_long_curve_is_thinned():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": "a", "predicted": "a", "score": rng.uniform(size=20_000)})
    assert len(risk_coverage(table)) == 1000


def test_before_calibration_the_metrics_are_those_of_the_head():
    p_NK, y_N = np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 0])
    bins = [{"images": 2, "confidence": 0.7, "accuracy": 0.5}]
    found = before_calibration(p_NK, y_N, Calibration(temperature=1.5), bins)
    assert found["log_loss_before"] == pytest.approx(-np.log([0.8, 0.4]).mean())
    assert found["calibration_error_before"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        (Calibration(), ""),
        (Calibration(temperature=1.5), "the temperature 1.500"),
        (Calibration(temperature=1.5, bias=[0.0, 1.0]), "the temperature 1.500 and a bias per class"),
        (Calibration(each=True, temperatures=[1.0, 2.0]), "a temperature per class"),
    ],
)
def test_what_calibration_does_is_told(calibration, said):
    p_NK, bins = np.array([[0.8, 0.2]]), [{"images": 1, "confidence": 0.8, "accuracy": 1.0}]
    assert before_calibration(p_NK, np.array([0]), calibration, bins)["calibration"] == said


def test_threshold_and_promise_are_marked_in_the_picture(tmp_path, predictions):
    curve = risk_coverage(predictions)
    for name, chosen in (("plain", {}), ("marked", told(predictions)), ("again", told(predictions))):
        risk_coverage_plot(curve, chosen, tmp_path / f"{name}.png")
    plain, marked, again = ((tmp_path / f"{name}.png").read_bytes() for name in ("plain", "marked", "again"))
    assert marked == again
    assert marked != plain
    with Image.open(tmp_path / "marked.png") as image:
        assert min(image.size) > 200
        red = np.asarray(image.convert("RGB")).astype(int) - (214, 39, 40)
    assert (np.abs(red).sum(axis=2) < 10).sum() > 20
