"""The reports on several classes an image and on numbers; on single classes, see the stage's tests."""

import re
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.data.task import METRICS
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.reporting.html import inlined
from graft.tasks.common.scoring import classification
from graft.tasks.common.scoring.multilabel import several_log_loss
from graft.tasks.evaluate import classification as classification_report
from graft.tasks.evaluate import multilabel, regression
from graft.tasks.evaluate import predictions as outcome
from graft.tasks.evaluate.page import report_page
from graft.tasks.evaluate.params import EvaluateParams
from graft.tasks.evaluate.predictions import Predictions

PARAMS = EvaluateParams(misclassified=3)
CLASSES = ["cat", "dog", "<owl>"]
TARGET = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], float)
P = np.array([[0.9, 0.2, 0.1], [0.6, 0.04, 0.3], [0.4, 0.5, 0.1], [0.97, 0.8, 0.2]])


def index(labels):
    n = len(labels)
    return pd.DataFrame(
        {"image_id": [f"{k}" for k in range(n)], "path": [f"{k}.png" for k in range(n)], "label": labels}
    )


@pytest.fixture
def raw(tmp_path, noise):
    for n in range(6):
        noise(30, 40, seed=n).save(tmp_path / f"{n}.png")
    return tmp_path


@pytest.fixture
def several(tmp_path):
    return Predictions(
        index(["cat", "cat|dog", "", "dog"]),
        CLASSES,
        TARGET,
        P,
        P,
        Calibration(each=True),
        PARAMS.bins,
        tmp_path,
        Reading(),
        np.arange(4),
    )


@pytest.fixture
def numbers(tmp_path):
    target = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    said = target + np.array([0.1, -0.5, 2.0, 0.0, -3.0, 0.2])
    return Predictions(
        index([str(y) for y in target]),
        [],
        target,
        said[:, None],
        said[:, None],
        Calibration(),
        PARAMS.bins,
        tmp_path,
        Reading(),
        np.arange(6),
    )


def page_of(metrics, classes, plots=MappingProxyType({})):
    return report_page(metrics, classes, 0.95, plots, {})


def metrics_of(report, outcome, task):
    """(predictions, classes, metrics)."""
    predictions = report.prediction_table(outcome)
    scores = report.scores(outcome.output, outcome.decided, outcome.target, outcome.units, PARAMS.confidence)
    further = report.further(outcome, predictions, PARAMS)
    images = len(outcome.index)
    found = {"task": task, **scores, **further, "candidate": "head", "images": images, "candidates": {"head": scores}}
    constant = {metric.key: 0.25 for metric in METRICS[task]}
    counted = {"units": len(set(outcome.units)), "unit": "picture", "baseline": constant}
    return predictions, report.class_table(outcome, PARAMS.confidence), {**found, **counted}


def test_the_classes_of_a_half_and_more_are_predicted(several):
    table = multilabel.prediction_table(several)
    assert list(table["predicted"]) == ["cat", "cat", "dog", "cat|dog"]
    assert list(table["label"]) == ["cat", "cat|dog", "", "dog"]
    assert np.array_equal(table[[f"p_{name}" for name in CLASSES]].to_numpy(), P)


def test_misclassified_examples_are_the_most_confident_errors(several):
    worst = multilabel.worst(several, 2)
    assert list(worst["path"]) == ["3.png", "1.png"]
    assert list(worst["caption"]) == ["dog\npredicted cat (97%)", "cat, dog\nmissed dog (4%)"]


def test_an_image_without_any_class_is_captioned_so(several):
    assert multilabel.worst(several, 9)["caption"].iloc[-1] == "no class\npredicted dog (50%)"


def test_an_image_whose_classes_are_all_correct_is_no_misclassified_example(several):
    assert len(multilabel.worst(several, 9)) == 3


def test_calibration_of_several_classes_is_of_each_answer_by_itself(several):
    _, _classes, metrics = metrics_of(multilabel, several, "multilabel")
    assert metrics["log_loss_before"] == pytest.approx(metrics["log_loss"])
    assert metrics["calibration_error_before"] == pytest.approx(metrics["calibration_error"])
    assert metrics["log_loss"] == pytest.approx(several_log_loss(P, TARGET))


def test_the_page_of_several_classes_has_their_metrics(several):
    _, classes, metrics = metrics_of(multilabel, several, "multilabel")
    page = page_of(metrics, classes)
    assert f"Test mean average precision <strong>{metrics['mean_average_precision']:.1%}</strong>" in page
    assert "on 4 test images of 3 classes" in page
    assert "all classes correct in 25.0% of the images" in " ".join(page.split())
    row = re.search(r"<td>&lt;owl&gt;</td>(.*?)</tr>", page).group(1)
    assert re.findall(r">([^<]*)</td>", row) == ["0", "0.000", "0.000", "", "0.000", "", "", ""]


def test_the_tables_of_several_classes_leave_out_a_class_that_no_test_image_has(several, tmp_path):
    multilabel.tabulate(several, multilabel.prediction_table(several), tmp_path)
    table = pd.read_csv(tmp_path / "average_precision.csv")
    assert list(table["label"]) == ["cat", "dog"]
    assert table["average_precision"].between(0, 1).all()
    assert len(pd.read_csv(tmp_path / "reliability.csv")) > 0


def test_a_prediction_of_a_number_has_its_error(numbers):
    table = regression.prediction_table(numbers)
    assert list(table["label"]) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert table["error"].to_numpy() == pytest.approx([0.1, -0.5, 2.0, 0.0, -3.0, 0.2])
    assert np.allclose(table["predicted"] - table["label"], table["error"])


def test_numbers_have_intervals_that_contain_their_metrics(numbers):
    _, _classes, metrics = metrics_of(regression, numbers, "regression")
    for key in ("r2", "mae", "rmse"):
        assert metrics[f"{key}_low"] < metrics[key] < metrics[f"{key}_high"]


def test_intervals_of_numbers_are_in_the_table_and_their_coverage_is_measured(numbers):
    promised = replace(numbers, calibration=Calibration(margin=1.0, interval_confidence=0.9))
    table, classes, metrics = metrics_of(regression, promised, "regression")
    assert table["high"].to_numpy() == pytest.approx(table["predicted"] + 1)
    found = metrics["prediction_intervals"]
    assert (found["confidence"], found["coverage"], found["margin"]) == (0.9, 4 / 6, 1.0)
    assert found["coverage_low"] < 4 / 6 < found["coverage_high"]
    assert "the true number in 66.7% of the test images" in page_of(metrics, classes)


def test_thresholds_of_the_classes_decide_and_leave_the_ranking_metrics(several):
    _, _, half = metrics_of(multilabel, several, "multilabel")
    own = replace(several, calibration=Calibration(each=True, thresholds=[0.95, 0.5, 0.5]))
    table, classes, metrics = metrics_of(multilabel, own, "multilabel")
    assert list(table["predicted"]) == ["", "", "dog", "cat|dog"]
    assert list(classes["threshold"]) == [0.95, 0.5, 0.5]
    assert metrics["f1_macro"] != half["f1_macro"]
    for key in ("mean_average_precision", "auroc", "log_loss", "calibration_error"):
        assert metrics[key] == pytest.approx(half[key])
    assert "from their own thresholds on" in " ".join(page_of(metrics, classes).split())


def test_the_weights_of_the_classes_decide_and_leave_the_probabilities(tmp_path):
    p_NK = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]])
    weighed = Calibration(decision_weights=[1.0, 2.0])
    target = np.array([1, 0, 1])
    predicted = Predictions(
        index(["rare", "often", "rare"]),
        ["often", "rare"],
        target,
        p_NK,
        p_NK,
        weighed,
        PARAMS.bins,
        tmp_path,
        Reading(),
        np.arange(3),
    )
    table, classes, metrics = metrics_of(classification_report, predicted, "classification")
    assert list(table["predicted"]) == ["rare", "often", "rare"]
    assert list(table["score"]) == [0.4, 0.9, 0.7]
    assert metrics["accuracy"] == 1.0
    assert list(classes["recall"]) == [1.0, 1.0]
    assert metrics["log_loss"] == pytest.approx(-np.log([0.4, 0.9, 0.7]).mean())


def test_prediction_sets_are_measured(tmp_path):
    p_NK = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]])
    sets = Calibration(set_least=0.35, set_confidence=0.9)
    predicted = Predictions(
        index(["b", "b", "b"]), ["a", "b"], np.array([1, 1, 1]), p_NK, p_NK, sets, 15, tmp_path, 3, np.arange(3)
    )
    found = metrics_of(classification_report, predicted, "classification")[2]["prediction_sets"]
    assert (found["coverage"], found["classes"]) == (pytest.approx(2 / 3), pytest.approx(4 / 3))


def test_the_largest_errors_are_shown_first(numbers, monkeypatch, tmp_path):
    shown = {}
    monkeypatch.setattr(regression, "misclassified_plot", lambda table, *_: shown.update(table=table))
    predictions, classes, metrics = metrics_of(regression, numbers, "regression")
    regression.draw(numbers, predictions, classes, metrics, 3, tmp_path)
    assert list(shown["table"]["path"]) == ["4.png", "2.png", "1.png"]
    assert shown["table"]["caption"].iloc[0] == "5\nas 2 (-3)"


def test_the_page_of_numbers_has_their_metrics_and_no_classes(numbers):
    _, classes, metrics = metrics_of(regression, numbers, "regression")
    page = page_of(metrics, classes)
    assert f"Test R² <strong>{metrics['r2']:.3f}</strong>" in page
    assert "Mean absolute error 0.9667" in page
    assert "on 6 test images." in page
    assert "<h2>Classes" not in page


def test_the_page_of_numbers_that_are_all_the_same_has_no_rank_correlation(numbers):
    _, classes, metrics = metrics_of(regression, numbers, "regression")
    assert "rank correlation" not in page_of({**metrics, "spearman": None}, classes)


def test_the_table_of_numbers_has_a_row_an_image(numbers, tmp_path):
    regression.tabulate(numbers, regression.prediction_table(numbers), tmp_path)
    table = pd.read_csv(tmp_path / "predicted.csv")
    assert list(table.columns) == ["actual", "predicted", "error"]
    assert len(table) == 6


@pytest.mark.parametrize(
    ("report", "outcome", "task", "own"),
    [
        (multilabel, "several", "multilabel", {"precision_recall.png", "roc.png", "reliability.png"}),
        (regression, "numbers", "regression", {"scatter.png", "residuals.png"}),
    ],
    ids=["several classes", "numbers"],
)
def test_the_plots_are_those_of_the_page(report, outcome, task, own, raw, tmp_path, request):
    outcome = request.getfixturevalue(outcome)
    predictions, classes, metrics = metrics_of(report, outcome, task)
    folder = tmp_path / "report"
    folder.mkdir()
    report.draw(outcome, predictions, classes, metrics, 3, folder)
    plots = inlined(folder)
    shown = re.findall(r'src="([^"]+)"', page_of(metrics, classes, plots))
    assert set(plots) == own | {"misclassified.png"}
    assert sorted(shown) == sorted(plots.values())


def test_the_reliability_is_computed_once_for_metrics_plots_and_tables(several, tmp_path, monkeypatch):
    asked = []
    counted = lambda *values: asked.append(values) or classification.reliability(*values)  # noqa: E731
    monkeypatch.setattr(outcome, "reliability", counted)
    predictions, _classes, metrics = metrics_of(multilabel, several, "multilabel")
    multilabel.tabulate(several, predictions, tmp_path)
    assert len(asked) == 2  # after calibration and before
    table = pd.read_csv(tmp_path / "reliability.csv")
    assert metrics["calibration_error"] == pytest.approx(
        classification.expected_calibration_error(table.to_dict("records"))
    )
