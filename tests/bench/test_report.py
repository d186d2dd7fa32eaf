"""From raw measurements to the tables of docs/explanation/benchmarks.md."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report import features_text, medians, replace_between


def peer(**loops: float) -> dict[str, Any]:
    return {"images": 100, "startup_seconds": 3.0, "loop_seconds": loops, "versions": {"torch": "1"}}


def stage(images: int, loop: float, whole: float) -> dict[str, Any]:
    return {"images": images, "loop_seconds": loop, "whole_seconds": whole}


@pytest.fixture
def raw() -> dict[str, list[dict[str, Any]]]:
    repro = {"whole_seconds": 6.0, "preprocess_seconds": 2.0}
    parts = {
        "images": 1000,
        "forwarded_images": 500,
        "threads": 2,
        "precision": "f32",
        "decode_one_thread_seconds": 4.0,
        "decode_all_threads_seconds": 2.0,
        "forward_seconds": 1.0,
    }
    return {
        "a": [peer(zero=8.0, one=6.0), peer(one=5.0), peer(one=20.0)],
        "e": [stage(1000, 4.0, 9.0), stage(1000, 5.0, 10.0), stage(1000, 50.0, 90.0)],
        "f": [{**repro, "images": 0, "features_seconds": 1.0}],
        "g": [{**repro, "images": 10, "features_seconds": seconds} for seconds in (3.0, 1.5, 9.0)],
        "p": [parts],
        "first": [{"preprocess": {"whole_seconds": 7.0}, "features": {"whole_seconds": 12.0}}],
    }


def test_a_peer_counts_by_the_median_of_its_best_variant(raw: dict[str, Any]) -> None:
    found = medians(raw, images=1000)["a"]

    assert found["variant"] == "one"
    assert found["images_per_second"] == pytest.approx(100 / 6.0, abs=0.01)
    assert found["whole_seconds"] == pytest.approx(3.0 + 1000 / (100 / 6.0))


def test_graft_is_compared_loop_with_loop_and_process_with_process(raw: dict[str, Any]) -> None:
    found = medians(raw, images=1000)

    assert found["e"]["images_per_second"] == 200
    assert found["a"]["graft_faster_loop"] == pytest.approx(200 / (100 / 6.0), abs=0.01)
    assert found["a"]["graft_faster_whole"] == pytest.approx(63 / 10, abs=0.01)


def test_the_roofline_is_that_of_two_steps_on_the_same_cores(raw: dict[str, Any]) -> None:
    found = medians(raw, images=1000)

    assert found["p"]["roofline"] == 250  # 500 decoded and 500 forwarded in a second
    assert found["e"]["share_of_roofline"] == 0.8


def test_the_table_shows_the_medians(raw: dict[str, Any]) -> None:
    machine = {"processor": "X", "family_model_stepping": "6/1/1", "cores": 2, "flags": [], "memory_gib": 8}
    results = {
        "date": "2026-01-01",
        "machine": {**machine, "system": "Linux 6", "load_before": 0.0},
        "versions": {"python": "3.11"},
        "settings": {"images": 1000, "peer_images": 100, "repetitions": 3},
        "backbones": {"resnet50": {"raw": raw, "medians": medians(raw, 1000)}},
    }

    text = features_text(results)

    assert "| **(e) Graft, cold** | 200.0 | 1.0 x | 10.0 | 1.0 x |" in text
    assert "| (g) 10 images added: `features` | 3.00 |" in text
    assert "| (f) warm, nothing is new: `dvc repro features` as a whole | 6.00 |" in text


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = "before <!-- x:begin --> old <!-- x:end --> after"

    assert replace_between(page, "x", "new") == "before <!-- x:begin -->\n\nnew\n\n<!-- x:end --> after"
    with pytest.raises(ValueError, match="lacks <!-- y:begin -->"):
        replace_between(page, "y", "new")
