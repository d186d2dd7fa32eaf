import numpy as np
import pytest

from graft.tasks.common.heads.base import unit_length
from graft.tasks.common.solvers import neighbours
from graft.tasks.common.solvers.neighbours import SLACK, Index, at_once, is_large, recommend


@pytest.fixture(scope="module")
def rows():
    """600 rows of which the last 100 are close to the first."""
    rng = np.random.default_rng(0)
    rows_NR = unit_length(rng.normal(size=(600, 48)).astype(np.float32))
    rows_NR[500:] = unit_length(rows_NR[:100] + 0.04 * rng.normal(size=(100, 48)).astype(np.float32))
    return rows_NR


def made(rows_NR):
    index = Index(rows_NR)
    index.add(rows_NR[:500])
    return index


def test_an_index_proposes_copies_and_little_else(rows):
    place, row = made(rows).near(rows[500:], 0.9)
    proposed = set(zip(place.tolist(), row.tolist(), strict=True))

    assert {(i, i) for i in range(100)} <= proposed
    assert (rows[500 + place] * rows[row]).sum(axis=1).min() >= 0.9 - 2 * SLACK


def test_the_nearest_rows_are_proposed_and_where_there_are_fewer_none(rows):
    found = made(rows).nearest(rows[500:], 3)
    assert all(i in found[i] for i in range(100))
    assert (np.diff(found, axis=1) > 0).all()
    few = Index(rows[:3])
    few.add(rows[:3])
    assert few.nearest(rows[:1], 5).tolist() == [[-1, -1, 0, 1, 2]]


def test_the_number_of_threads_changes_nothing(rows, monkeypatch):
    found = made(rows).nearest(rows, 5)
    monkeypatch.setattr(neighbours, "cores", lambda: 1)
    assert np.array_equal(made(rows).nearest(rows, 5), found)


def test_an_empty_index_proposes_nothing(rows):
    assert [len(found) for found in Index(rows).near(rows, 0.9)] == [0, 0]


def test_of_more_rows_fewer_are_asked_about_at_a_time():
    assert at_once(10**6) * 10**6 <= neighbours.PROPOSED
    assert (at_once(1), at_once(2**30)) == (neighbours.PROPOSED, 1)


def test_without_faiss_all_is_compared_and_a_line_says_what_would_help(monkeypatch, capsys):
    few, many = neighbours.EXACT, neighbours.EXACT + 1
    assert (is_large(few), is_large(many)) == (False, True)
    recommend(many, "audit")
    monkeypatch.setattr(neighbours, "find_spec", lambda name: None)
    recommend(few, "audit")
    assert not capsys.readouterr().err
    recommend(many, "audit")
    assert not is_large(many)
    assert "graft[neighbours]" in capsys.readouterr().err
