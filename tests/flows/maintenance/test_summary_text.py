from __future__ import annotations

from typing import Any

import pytest

from graft.flows.maintenance.summary_text import rows_of

UNKNOWN = "unknown: no test image has a defect"


def found(**given: Any) -> dict[str, Any]:
    rate = {"false_alarm_rate": 0.0, "false_alarm_rate_low": 0.0, "false_alarm_rate_high": 0.1}
    defects = dict.fromkeys(
        ["auroc", "auroc_low", "auroc_high", *(f"detection_rate{end}" for end in ("", "_low", "_high"))]
    )
    return {
        "task": "anomaly", "images": 66, "rejected": 0, "classes": 1, "unseen": 0.0, "test_images": 9, "audit": [],
        "candidate": "head", "finetune": "", "model": "", "model_note": "", "detection": UNKNOWN, **rate, **defects,
        "report": "report/index.html", "seconds": {}, **given,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kinds", "1, with good"),
        ("detection rate", "unknown"),
        ("false alarm rate", "0.0%  (0.0% to 10.0%)"),
    ],
)
def test_anomaly_detection_without_a_defect_has_its_own_rows(name: str, text: str) -> None:
    assert dict(rows_of(found()))[name] == text


def test_without_a_defect_in_the_test_the_main_metric_says_so() -> None:
    assert dict(rows_of(found()))["test AUROC"] == "unknown  (9 images, no test image has a defect)"
