"""The ledger as a table."""

from __future__ import annotations

from typing import Any

import pytest

from graft.flows.registry.ledger_text import print_ledger


def entry(labels: int, **metrics: float) -> dict[str, Any]:
    return {
        "at": "2026-12-01T02:00:00+00:00",
        "what": "promoted",
        "version": "2",
        "previous": "1",
        "by": "graft",
        "why": "it is better",
        "labels": labels,
        "metrics": metrics,
    }


@pytest.mark.parametrize(
    ("labels", "metrics", "told"),
    [
        (40, {"accuracy": 0.91, "champion_accuracy": 0.9}, "40: +1.0 points"),
        (40, {"accuracy": 0.9, "champion_accuracy": 0.95}, "40: -5.0 points"),
        (40, {"r2": 0.5, "champion_r2": 0.75}, "40: -0.250"),
        (40, {"accuracy": 0.91}, "40"),
    ],
)
def test_the_ledger_tells_what_labels_brought(
    labels: int,
    metrics: dict[str, float],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_ledger([entry(labels, **metrics)])
    assert f" {told}  " in capsys.readouterr().out


def test_a_night_without_labels_says_nothing_of_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_ledger([entry(0, accuracy=0.91, champion_accuracy=0.9)])
    assert "points" not in capsys.readouterr().out
