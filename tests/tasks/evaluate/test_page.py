import re
from html.parser import HTMLParser

import pytest

from tasks.evaluate.page import report_page


@pytest.fixture
def metrics():
    row = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4}
    score = {"accuracy": 0.75, "accuracy_low": 0.6, "accuracy_high": 0.9, "log_loss": 0.5}
    return {
        "task": "classification",
        **score,
        "calibration_error": 0.125,
        "temperature": 1.75,
        "log_loss_before": 0.625,
        "calibration_error_before": 0.25,
        "candidate": "head",
        "images": 40,
        "classes": 2,
        "candidates": {"head": score},
        "per_class": {"cat": row, "dog": row},
    }


def texts(page):
    """The page's text as a browser would show it."""
    found = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed(page)
    return " ".join(found)


def test_accuracy_and_interval_are_told(metrics):
    text = texts(report_page(metrics, 0.95))
    assert "75.0%" in text
    assert "60.0% to 90.0% with 95% confidence, on 40 test images of 2 classes" in text


def test_each_class_has_a_row_of_its_figures(metrics):
    page = report_page(metrics, 0.95)
    assert "<td>cat</td><td class=n>0.500</td><td class=n>0.250</td><td class=n>0.333</td><td class=n>4</td>" in page
    assert "<td>dog</td>" in page


def test_each_candidate_has_a_row(metrics):
    metrics["candidates"]["finetune"] = metrics["candidates"]["head"]
    page = report_page(metrics, 0.95)
    assert "<td>head</td>" in page
    assert "<td>finetune</td>" in page


@pytest.mark.parametrize("name", ["<b>bold</b>", "salt & pepper", '"quoted"', "<script>alert(1)</script>", "Käse 🧀"])
def test_a_class_name_is_shown_as_it_is_written(metrics, name):
    metrics["per_class"] = {name: metrics["per_class"]["cat"]}
    page = report_page(metrics, 0.95)
    assert name in texts(page)


def test_a_class_name_cannot_bring_markup(metrics):
    metrics["per_class"] = {"<script>x</script> & co": metrics["per_class"]["cat"]}
    page = report_page(metrics, 0.95)
    assert "<script" not in page
    assert "&lt;script&gt;x&lt;/script&gt; &amp; co" in page


def test_the_page_needs_no_network(metrics):
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', report_page(metrics, 0.95))


def test_what_calibration_changed_is_told(metrics):
    text = texts(report_page(metrics, 0.95))
    assert "temperature 1.750" in text
    assert "Without that the log loss would be 0.625, the calibration error 0.250" in text


def test_the_page_shows_the_four_pictures_beside_it(metrics):
    sources = re.findall(r'src="([^"]+)"', report_page(metrics, 0.95))
    assert sources == ["confusion.png", "reliability.png", "risk_coverage.png", "mistakes.png"]
