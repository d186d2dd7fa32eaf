import pytest

from graft.flows.labelling import choice, guard
from graft.flows.labelling.choice import draw_curve, next_images, remarks, summary
from graft.flows.labelling.guard import simulated
from graft.tasks.common.core.errors import DataError
from graft.tasks.labelling.simulation import Simulation

LAW = [[0.05, 2.0, 0.5]] * 20


def judged(ahead):
    return Simulation(
        "classification", 400, [10, 20], [0.5, 0.6], [0.45, 0.55], ahead, laws={"auto": LAW, "random": LAW}
    )


def test_before_the_first_run_there_is_nothing_to_simulate_with(empty_project):
    assert simulated(empty_project.root) is None


def test_a_small_project_says_why_there_is_no_simulation(pooled):
    found = simulated(pooled.root)
    assert "validation images" in found.reason
    assert list((pooled.root / ".graft" / "cache" / "labelling").glob("*.json"))
    asked = next_images(pooled.root, 4)
    assert remarks(asked) == [f"auto was not compared with random on the labels that are there: {found.reason}"]


def test_it_is_kept_until_the_labels_change(pooled, monkeypatch):
    calls = []
    monkeypatch.setattr(guard, "simulate", lambda pack, unit_N: calls.append(len(pack.index)) or judged(0.1))
    assert simulated(pooled.root) == simulated(pooled.root) == judged(0.1)
    assert len(calls) == 1
    whole = guard.read_feature_set
    monkeypatch.setattr(guard, "read_feature_set", lambda folder: relabelled(whole(folder)))
    simulated(pooled.root)
    assert len(calls) == 2


def relabelled(pack):
    pack.index.loc[0, "label"] = "violet"
    return pack


@pytest.mark.parametrize(("ahead", "expected"), [(0.05, {"typical", "margin", "random"}), (-0.05, {"random"})])
def test_auto_is_random_where_it_was_worse(pooled, monkeypatch, ahead, expected):
    monkeypatch.setattr(choice, "simulated", lambda root: judged(ahead))
    asked = next_images(pooled.root, 6)
    assert set(asked.table["why"]) <= expected
    assert ("so auto is random here" in remarks(asked)[0]) == (ahead < 0)
    assert summary(asked)["forecast"].startswith("with 6 more labels, about +")
    assert summary(asked)["simulation"][1] == {"labels": 20, "auto": 0.6, "random": 0.55}


def test_another_strategy_is_not_judged(pooled, monkeypatch):
    monkeypatch.setattr(choice, "simulated", lambda root: pytest.fail("not asked for"))
    assert next_images(pooled.root, 6, "margin").simulation is None


def test_the_curve_is_drawn(pooled, monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "simulated", lambda root: judged(0.1))
    draw_curve(next_images(pooled.root, 6), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="no curve"):
        draw_curve(next_images(pooled.root, 6, "random"), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
