"""The report as one HTML page that needs no network; its pictures lie beside it."""

from __future__ import annotations

from html import escape
from typing import Any

from .selective import abstention_text, calibration_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } h1 strong { color: #0a5; }
"""


def report_page(metrics: dict[str, Any], confidence: float) -> str:
    """The page's text; `metrics` as in metrics/evaluate.json."""
    interval = f"{metrics['accuracy_low']:.1%} to {metrics['accuracy_high']:.1%} with {confidence:.0%} confidence"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><title>Graft: test report</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>Test accuracy <strong>{metrics['accuracy']:.1%}</strong></h1>",
            f"<p>{interval}, on {metrics['images']} test images of {metrics['classes']} classes. "
            f"Log loss {metrics['log_loss']:.3f}, calibration error {metrics['calibration_error']:.3f}. "
            f"The candidate <b>{escape(metrics['candidate'])}</b> was chosen on validation images; the test images "
            "had no part in it.</p>",
            "<h2>Candidates</h2>",
            _table(
                ["candidate", "accuracy", "low", "high", "log loss"],
                [
                    [name, *(_figure(values[key]) for key in ("accuracy", "accuracy_low", "accuracy_high", "log_loss"))]
                    for name, values in metrics["candidates"].items()
                ],
            ),
            "<h2>Classes</h2>",
            _table(
                ["class", "precision", "recall", "f1", "images"],
                [
                    [name, *(_figure(row[key]) for key in ("precision", "recall", "f1")), str(row["support"])]
                    for name, row in metrics["per_class"].items()
                ],
            ),
            *(
                f'<h2>{title}</h2>{text}<img src="{file}" alt="{title}">'
                for title, text, file in (
                    ("Confusion", "", "confusion.png"),
                    ("Reliability", calibration_text(metrics), "reliability.png"),
                    ("Errors against coverage", abstention_text(metrics), "risk_coverage.png"),
                    ("The worst mistakes", "", "mistakes.png"),
                )
            ),
            "</body></html>",
            "",
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        parts = [f"<{tag}{'' if n == 0 else ' class=n'}>{escape(cell)}</{tag}>" for n, cell in enumerate(cells)]
        return f"<tr>{''.join(parts)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _figure(value: float) -> str:
    return f"{value:.3f}"
