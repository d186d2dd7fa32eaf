import re

import numpy as np
import pandas as pd
import pytest
from pages import visible_text

from graft.tasks.common.data.task import METRICS
from graft.tasks.evaluate.page import report_page
from graft.tasks.evaluate.saliency import Saliency, SaliencyExample


@pytest.fixture
def metrics():
    score = {"log_loss": 0.5}
    for metric in METRICS["classification"]:
        score |= dict(zip(metric.keys, (0.75, 0.6, 0.9), strict=True))
    return {
        "task": "classification",
        **score,
        "calibration_error": 0.125,
        "calibration": "the temperature 1.750",
        "log_loss_before": 0.625,
        "calibration_error_before": 0.25,
        "candidate": "head",
        "images": 40,
        "classes": 2,
        "candidates": {"head": score},
        "classwise_calibration_error": 0.0625,
        "units": 40,
        "unit": "picture",
        "baseline": {metric.key: 0.375 for metric in METRICS["classification"]},
    }


@pytest.fixture
def classes():
    row = {"images": 4, "precision": 0.5, "recall": 0.25, "recall_low": 0.05, "recall_high": 0.7, "f1": 1 / 3}
    average = {"average_precision": 0.625, "average_precision_low": 0.3, "average_precision_high": 0.9, "auroc": 0.875}
    return pd.DataFrame([{"class": name, **row, **average} for name in ("cat", "dog")])


PLOTS = {
    f"{name}.png": f"data:image/png;base64,{name}=="
    for name in ("confusion", "misclassified", "precision_recall", "reliability", "risk_coverage", "roc", "saliency")
}


NONE = pd.DataFrame(columns=["class"])


def page_of(metrics, classes=NONE, plots=PLOTS, **more):
    return report_page(metrics, classes, 0.95, plots, {"backbone": "<net>"}, **more)


def test_accuracy_and_interval_are_told(metrics):
    text = visible_text(page_of(metrics))
    assert "75.0%" in text
    assert "60.0% to 90.0% with 95% confidence, on 40 test images of 2 classes" in text


def test_every_metric_has_a_row_with_its_interval_and_that_of_a_constant_answer(metrics):
    page = page_of(metrics)
    for title in ("accuracy", "balanced accuracy", "macro F1", "mean average precision"):
        assert f"<td>{title}</td><td class=n>75.0%</td><td class=n>60.0% to 90.0%</td><td class=n>37.5%</td>" in page
    for title in ("AUROC", "Cohen&#39;s kappa"):
        assert f"<td>{title}</td><td class=n>0.750</td><td class=n>0.600 to 0.900</td><td class=n>0.375</td>" in page


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("group", "in 8 groups, each"),
        ("picture", "in 8 different pictures, each"),
        ("group or picture", "in 8 groups and"),
    ],
)
def test_units_are_told_where_they_are_fewer_than_the_images(metrics, unit, said):
    assert said in visible_text(page_of({**metrics, "units": 8, "unit": unit}))
    assert "counts as one" not in visible_text(page_of({**metrics, "unit": unit}))


def test_each_class_has_a_row_of_metrics(metrics, classes):
    page = page_of(metrics, classes)
    row = re.search(r"<td>cat</td>(.*?)</tr>", page).group(1)
    cells = ["4", "0.500", "0.250", "0.05 to 0.70", "0.333", "0.625", "0.30 to 0.90", "0.875"]
    assert re.findall(r">([^<]*)</td>", row) == cells
    assert "<td>dog</td>" in page


def test_of_many_classes_the_worst_are_listed(metrics, classes):
    many = pd.concat([classes.iloc[:1]] * 1000).assign(
        **{"class": [f"class {k}" for k in range(1000)], "f1": np.linspace(1, 0, 1000)}
    )
    page = page_of(metrics, many)

    assert re.findall(r"<td>class (\d+)</td>", page) == [str(k) for k in range(999, 969, -1)]
    assert "The 30 classes with the lowest F1; report/classes.csv has the 970 others too." in visible_text(page)
    assert "lowest F1" not in page_of(metrics, many.head(30))


def test_each_candidate_has_a_row(metrics):
    metrics["candidates"]["finetune"] = metrics["candidates"]["head"]
    page = page_of(metrics)
    assert "<td>head</td>" in page
    assert "<td>finetune</td>" in page


@pytest.mark.parametrize("name", ["<b>bold</b>", "salt & pepper", '"quoted"', "<script>alert(1)</script>", "Käse 🧀"])
def test_a_class_name_is_shown_as_it_is_written(metrics, classes, name):
    assert name in visible_text(page_of(metrics, classes.replace("cat", name)))


def test_class_names_are_escaped(metrics, classes):
    page = page_of(metrics, classes.replace("cat", "<script>x</script> & co"))
    assert "<script" not in page
    assert "&lt;script&gt;x&lt;/script&gt; &amp; co" in page


def test_the_page_needs_no_network(metrics):
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page_of(metrics))


def test_the_effect_of_calibration_is_told(metrics):
    text = visible_text(page_of(metrics))
    assert "temperature 1.750" in text
    assert "Without it, the log loss would be 0.625 and the calibration error 0.250" in text


def test_probabilities_that_were_not_calibrated_are_those_of_the_head(metrics):
    assert "The probabilities are those of the head." in visible_text(page_of({**metrics, "calibration": ""}))


def test_plots_are_inlined_so_that_the_page_is_complete_in_one_file(metrics):
    sources = re.findall(r'src="([^"]+)"', page_of(metrics))
    shown = ("confusion", "precision_recall", "roc", "reliability", "risk_coverage", "misclassified")
    assert sources == [PLOTS[f"{name}.png"] for name in shown]


def test_many_classes_have_no_curves(metrics):
    few = {name: plot for name, plot in PLOTS.items() if name not in ("precision_recall.png", "roc.png")}
    assert "ROC curves" in page_of(metrics)
    assert "ROC curves" not in page_of(metrics, plots=few)


def test_the_page_says_what_it_was_made_from(metrics):
    assert "backbone <net>" in visible_text(page_of(metrics))


@pytest.mark.parametrize(("leaked", "said"), [(1, "1 test image is also"), (3, "3 test images are also")])
def test_the_metrics_without_leaks_are_told(metrics, leaked, said):
    left = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "images": 40, "leaked": leaked}
    text = visible_text(page_of({**metrics, "without_leaks": left}))
    assert f"{said} among the training or validation images." in text
    assert "Without them the accuracy is 90.0% (80.0% to 95.0%, 40 images)." in text


ABSTENTION = {"max_error": 0.25, "confidence": 0.9, "coverage": 0.8, "answered": 4}


def test_guarantee_and_result_are_told(metrics):
    found = {**ABSTENTION, "error": 0.25, "error_low": 0.1, "error_high": 0.5}
    text = visible_text(page_of({**metrics, "abstention": found}))
    assert "answers for 4 test images (80.0%)" in text
    assert "25.0% of the answers are wrong (10.0% to 50.0%)" in text
    assert "an error rate of at most 25.0% with 90% confidence" in text


def test_without_any_answer_there_is_no_error_rate(metrics):
    text = visible_text(page_of({**metrics, "abstention": {**ABSTENTION, "answered": 0, "coverage": 0.0}}))
    assert "answers for 0 test images (0.0%)" in text
    assert "of the answers are wrong" not in text


def test_the_parameter_is_named_where_nothing_is_guaranteed(metrics):
    assert "head.max_error" in visible_text(page_of(metrics))


def test_the_coverage_of_prediction_sets_is_told(metrics):
    found = {"confidence": 0.9, "coverage": 0.875, "coverage_low": 0.7, "coverage_high": 0.95, "classes": 1.5}
    text = visible_text(page_of({**metrics, "prediction_sets": found}))
    assert "The sets have 1.50 classes on average." in text
    assert "the true class in 87.5% of the test images (70.0% to 95.0%); 90% was asked for." in text


def test_saliency_is_shown_with_what_it_means(metrics):
    example = SaliencyExample(
        "true a", True, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32), np.ones((2, 2), bool)
    )
    page = page_of(metrics, saliency=Saliency("classification", (example,)))
    assert PLOTS["saliency.png"] in page
    assert "the more it supports the predicted class." in visible_text(page)


def test_the_reason_for_no_saliency_is_escaped(metrics):
    page = page_of(metrics, saliency=Saliency("classification", (), "<i>why</i>"))
    assert "There are no Grad-CAM maps: <i>why</i>." in visible_text(page)
    assert "<i>" not in page
