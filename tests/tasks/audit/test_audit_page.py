import re

import numpy as np
import pandas as pd
import pytest
from pages import visible_text

from graft.tasks.audit.curve import Curve
from graft.tasks.audit.findings import Findings
from graft.tasks.audit.near_duplicates import COLUMNS as PAIR
from graft.tasks.audit.near_duplicates import NearDuplicates
from graft.tasks.audit.page import LISTED, audit_page
from graft.tasks.audit.verdicts import Verdict


@pytest.fixture
def found():
    """found(key=value, ...) -> what an audit of 200 images found: nothing, unless told."""

    def make(**changes):
        none = np.zeros(200, bool)
        sizes = pd.DataFrame({"share": [0.5, 1.0], "images": [70, 140], "value": [0.8, 0.9], "low": 0.7, "high": 0.95})
        nothing = {
            "task": "classification",
            "images": 200,
            "pictures": 200,
            "units": 150,
            "by_split": {"train": 140, "val": 30, "test": 30},
            "classes": 3,
            "l2": 0.01,
            "out_of_fold": (0.9, 0.85, 0.94),
            "unjudged": 0,
            "by_chance": 0.0,
            "doubted": 0,
            "judged": 100,
            "label_issues": pd.DataFrame(),
            "near_duplicates": NearDuplicates(pd.DataFrame(), 0, none, none, none.astype(int)),
            "leaks": pd.DataFrame(),
            "leaked": {"val": 0, "test": 0},
            "conflicts": pd.DataFrame(),
            "conflicting": 0,
            "outliers": pd.DataFrame(),
            "confusable": pd.DataFrame(),
            "map": pd.DataFrame({"x": [0.0] * 200}),
            "curve": Curve(sizes, sizes, {}, {"gain": 0.012, "low": 0.004, "high": 0.021, "reason": ""}, {}),
        }
        return Findings(**{**nothing, **changes})

    return make


def issues_of(count, label="cat"):
    return pd.DataFrame(
        {
            "path": [f"{label}/{n:03}.jpg" for n in range(count)],
            "split": "train",
            "label": label,
            "suggested": "dog",
            "score": 0.02,
            "p_label": 0.02,
            "p_suggested": 0.975,
        }
    )


def pairs_of(count):
    row = ["a.jpg", "train", "cat", "b.jpg", "test", "cat", 0.99, 0.5, "1", "2"]
    return pd.DataFrame([row] * count, columns=PAIR)


PLOT = "data:image/png;base64,AAAA"


def page_of(found, verdicts=(), plots=None):
    return audit_page(found, verdicts, plots or {}, {"backbone": "<net>"})


def test_the_page_says_where_nothing_is_found(found):
    shown = visible_text(page_of(found(), []))
    for sentence in (
        "No label is suspected.",
        "No validation or test image is also in an earlier split.",
        "No training or validation image is also there under another label.",
        "No image is far from all others.",
        "No two classes are confused more often than chance may explain.",
    ):
        assert sentence in shown


def test_each_verdict_has_a_row(found):
    verdicts = [
        Verdict("label_issues", "labels are suspected", 9, 200, 0.02, "fail"),
        Verdict("leaks", "images are leaks", 0, 60, 0.0, "warn"),
    ]
    page = page_of(found(), verdicts)
    assert "<td>label issues</td><td>9 of 200 labels are suspected (4.5%)</td><td class=n>0.02 = 4</td>" in page
    assert "<td class=n>failed</td>" in page
    assert "<td class=n>ok</td>" in page


def test_a_suspected_label_has_its_path_its_label_and_the_suggestion(found):
    page = page_of(found(label_issues=issues_of(1), doubted=1), [])
    assert "1 label is suspected" in visible_text(page)
    assert (
        "<td>cat/000.jpg</td><td>train</td><td>cat</td><td>dog</td><td class=n>2.0%</td><td class=n>97.5%</td>" in page
    )


def test_a_long_table_is_cut_and_the_rest_counted(found):
    shown = visible_text(page_of(found(label_issues=issues_of(LISTED + 5)), []))
    assert f"cat/{LISTED - 1:03}.jpg" in shown
    assert f"cat/{LISTED:03}.jpg" not in shown
    assert "... and 5 more." in shown


def test_leaks_are_counted_by_split_and_named_in_pairs(found):
    page = page_of(found(leaks=pairs_of(1), leaked={"val": 2, "test": 1}), [])
    assert "1 test image is also among the training or validation images, and 2 validation images" in visible_text(page)
    assert "<td>a.jpg</td><td>train</td><td>cat</td><td>b.jpg</td><td>test</td><td>cat</td>" in page


def test_confusable_classes_have_their_share_and_its_interval(found):
    pair = {"class": "cat", "other_class": "dog", "images": 90, "share": 0.3, "low": 0.2, "high": 0.4}
    page = page_of(found(confusable=pd.DataFrame([pair])), [])
    assert "<td>cat</td><td>dog</td><td class=n>90</td><td class=n>30.0% (20.0% to 40.0%)</td>" in page


def test_the_gain_from_twice_the_images_is_a_sentence(found):
    shown = visible_text(page_of(found(), []))
    assert (
        "Twice the training images would improve a linear model on these features by about 1.2 points of accuracy"
        in shown
    )
    assert "(0.4 to 2.1)." in shown


def test_the_page_says_why_the_gain_cannot_be_estimated(found):
    curve = found().curve
    unknown = Curve(curve.table, curve.sizes, {0.01: "too few groups"}, {"reason": "there are only 2 sizes"}, {})
    shown = visible_text(page_of(found(curve=unknown), []))
    assert "The gain from twice the training images cannot be estimated: there are only 2 sizes." in shown
    assert "1% was left out: too few groups." in shown


def test_names_are_escaped(found):
    page = page_of(found(label_issues=issues_of(1, "<script>x</script>")), [])
    assert "<script" not in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "&lt;net&gt;" in page


def test_the_page_needs_no_other_file_and_shows_only_plots_that_exist(found):
    page = page_of(found(label_issues=issues_of(1), leaks=pairs_of(1)), [], {"label_issues.png": PLOT, "map.png": PLOT})
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert re.findall(r'src="([^"]+)" alt="([^"]+)"', page) == [(PLOT, "Suspected labels"), (PLOT, "Map of the images")]
