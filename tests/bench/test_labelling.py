import numpy as np
import pytest

from bench import report
from bench.labelling import (
    curve,
    flip,
    found_first,
    graft_order,
    graft_suspects,
    held_out,
    labelling_text,
    labels_to_reach,
)
from bench.report import Target, replace_between

CENTRES = np.random.default_rng(0).normal(size=(3, 12)) * 4


def data(count=120, most=60):
    rng = np.random.default_rng(1)
    y_N = rng.integers(3, size=count)
    x_NA = (CENTRES[y_N] + rng.normal(size=(count, 12))).astype(np.float32)
    return {"x": x_NA, "axes": x_NA, "y": y_N, "classes": 3, "most": most, "sizes": [25, most]}


def test_with_every_five_seeds_each_image_is_for_test_once():
    test_SN = held_out(103)
    assert test_SN[:5].sum(axis=0).tolist() == test_SN[5:].sum(axis=0).tolist() == [1] * 103
    assert set(test_SN.sum(axis=1).tolist()) == {20, 21}


@pytest.mark.parametrize("strategy", ["auto", "random"])
def test_an_order_has_no_image_twice_and_none_of_test(strategy):
    known = data()
    order = graft_order(strategy, known, np.arange(20, 120), seed=0)
    assert len(set(order.tolist())) == len(order) == 60
    assert order.min() >= 20
    assert curve(order, known, np.arange(20))[-1] > 0.9


def test_the_first_size_that_reaches_the_goal():
    accuracy_S = np.array([0.5, 0.8, 0.9])
    assert labels_to_reach([25, 50, 100], accuracy_S, 0.8) == 50
    assert labels_to_reach([25, 50, 100], accuracy_S, 0.95) is None


def test_flipped_labels_are_another_class_and_the_audit_finds_them():
    known = data(200)
    given_N, flipped = flip(known["y"], 3)
    assert set(np.flatnonzero(given_N != known["y"])) == set(flipped)
    assert len(flipped) == 10
    found = found_first(graft_suspects(known["x"], given_N), flipped)
    assert found["of_the_first"] > 0.7


def test_suspects_are_counted_among_as_many_first_ones():
    assert found_first([5, 1, 2, 9], np.array([1, 9])) == {"of_the_first": 0.5, "suspected": 4}


@pytest.fixture
def results():
    one = {
        "sizes": [25, 50],
        "curves": {"auto": [0.5, 0.9], "random": [0.4, 0.8]},
        "goal": 0.8,
        "labels": {"auto": 50, "random": 50},
        "most_below": -0.1,
        "suspects": {"graft": {"of_the_first": 0.9, "suspected": 12}},
        "flipped": 10,
    }
    machine = dict.fromkeys(("processor", "family_model_stepping", "cores", "memory_gib", "system", "load_before"), "x")
    return {
        "date": "2026-01-01",
        "seeds": 2,
        "machine": {**machine, "flags": []},
        "versions": {"graft": "1"},
        "sets": {"signs": one},
        "speed": {"margin": {"images": 5000, "seconds": 1.25, "peak_mib": 300.0}},
    }


def test_the_tables_have_the_curves_the_labels_the_suspects_and_the_speed(results):
    text = labelling_text(results)
    assert "| signs, **Graft, auto** | 50.0% | 90.0% |" in text
    assert "| signs | 50 | 80.0% | 50 | -10.0 |" in text
    assert "| signs | 10 | 90.0% (12) |" in text
    assert "| margin, 5,000 images | 1.2 | 300 |" in text


def test_the_page_has_a_place_for_them_and_the_plot_is_drawn(results, tmp_path):
    page = Target.published().page.read_text(encoding="utf-8")
    assert "new text" in replace_between(page, "labelling", "new text")
    target = Target(tmp_path, tmp_path / "page.md", tmp_path / "images")
    target.page.write_text("<!-- labelling:begin --><!-- labelling:end -->", encoding="utf-8")
    report.write_labelling(results, "text", target)
    assert (target.images / "bench-labelling.png").stat().st_size > 1000
