"""Results as objects, and as they appear in a notebook."""

from __future__ import annotations

import re

import pytest
from projects import Project, draw

import graft
from graft.flows.python import display


def test_the_report_has_what_the_summary_prints_and_every_metric(finished: Project) -> None:
    report = graft.open(finished.root).report()

    assert report.metrics["evaluate"] == finished.json("metrics/evaluate.json")
    assert report.summary["images"] == 42
    assert len(report.predictions) == report.summary["test_images"]
    assert report.page.is_file()


def test_the_report_in_a_notebook_has_the_confusion_in_it(finished: Project) -> None:
    shown = graft.open(finished.root).report()._repr_html_()

    assert "test accuracy" in shown
    assert re.findall(r'<img src="data:image/png;base64,[^"]+" alt="(\w+)"', shown)[0] == "confusion"


def test_the_audit_has_each_check_and_its_tables(finished: Project) -> None:
    audit = graft.open(finished.root).audit()

    assert {"label_issues", "leaks", "outliers"} <= {*audit.checks.index}
    assert audit.checks.loc["leaks", "state"] == "ok"
    for name in ("label_issues", "leaks", "conflicts", "outliers", "confusable"):
        assert len(getattr(audit, name)) == audit.checks.loc[name, "found"]
    assert "label issues" in audit._repr_html_()


def test_status_says_what_would_run_and_why(project: Project) -> None:
    assert graft.open(project.root).status().empty

    project.set("head", l2_max=0.125)
    status = graft.open(project.root).status()

    assert status.stages == ("head",)
    assert "evaluate" in status.downstream
    assert "head.l2_max" in status.reasons["head"]
    assert re.search(r"head</td>.*runs.*head\.l2_max", status._repr_html_())


def test_text_in_a_notebook_is_escaped() -> None:
    shown = display.table("<b>", ["<i>"], [["<script>"]], [("<u>", "data:,", 0)])

    assert not re.search("<(script|i|u)>", shown)
    assert "&lt;script&gt;" in shown


def test_an_image_that_cannot_be_read_has_no_thumbnail(tmp_path) -> None:
    draw(tmp_path / "a.png", 0, 0)

    shown = display.thumbnails([("a", tmp_path / "a.png"), ("b", b"no image"), ("c", tmp_path / "none.png")])

    assert [caption for caption, _, _ in shown] == ["a"]


@pytest.mark.parametrize("ask", ["features", "report", "audit", "status"])
def test_every_result_has_a_text_of_its_own(finished: Project, ask: str) -> None:
    assert "object at 0x" not in repr(getattr(graft.open(finished.root), ask)())


def test_the_project_itself_says_whether_something_would_run(finished: Project) -> None:
    assert "nothing to do" in graft.open(finished.root)._repr_html_()
