import numpy as np
import pytest

from graft.tasks.audit import whitening as module
from graft.tasks.audit.whitening import whitened
from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.heads.base import unit_length


def expected(rows_ND):
    """By the definition: axes of the covariance, each divided by the root of its variance plus that of the axis at a
    quarter of those that there are."""
    centred = rows_ND - rows_ND.mean(axis=0)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(rows_ND))
    kept = min(len(rows_ND) - 1, rows_ND.shape[1])
    variance, axes = variance[::-1][:kept], axes[:, ::-1][:, :kept]
    turned = centred @ axes / np.sqrt(variance + variance[kept // 4])
    return turned / np.linalg.norm(turned, axis=1, keepdims=True)


@pytest.mark.parametrize("n", [8, 20, 300], ids=["fewer rows than columns", "as many", "more"])
def test_cosines_are_those_of_the_definition(n):
    rows_ND = np.random.default_rng(0).normal(size=(n, 20)) * np.geomspace(10, 0.1, 20) + 5
    found, right = whitened(rows_ND.astype(np.float32)), expected(rows_ND)
    assert np.allclose(found @ found.T, right @ right.T, atol=1e-3)


def test_only_the_largest_axes_are_kept(monkeypatch):
    monkeypatch.setattr(module, "AXES", 3)
    rows_ND = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    assert whitened(rows_ND).shape == (50, 3)
    assert whitened(rows_ND[:6]).shape == (6, 3)


def test_the_rows_blocks_change_nothing(monkeypatch):
    rows_ND = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float16)
    whole = whitened(rows_ND)
    monkeypatch.setattr(module, "BLOCK", 7)
    monkeypatch.setattr(module, "blocks", lambda count, size: blocks(count, 7))
    assert np.allclose(np.abs(whitened(rows_ND)), np.abs(whole), atol=1e-3)


def test_what_all_rows_have_in_common_counts_for_nothing():
    rng = np.random.default_rng(0)
    rows_ND = (100 * rng.normal(size=20) + rng.normal(size=(200, 20))).astype(np.float32)
    cosines = whitened(rows_ND) @ whitened(rows_ND).T
    assert np.abs(cosines[~np.eye(200, dtype=bool)]).max() < 0.95


@pytest.mark.parametrize("n", [3, 10])
def test_rows_that_are_all_the_same_are_alike(n):
    same = whitened(np.full((n, 5), [0.1, 0.7, 1 / 3, 1.9, 0.0], np.float32))
    assert (same @ same.T == 1).all()


def test_rows_at_the_mean_are_alike_and_like_no_others():
    rows_ND = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32) + 3
    rows_ND = np.vstack([rows_ND, 6 - rows_ND, np.full((2, 8), 3, np.float32)])
    cosines = whitened(rows_ND) @ whitened(rows_ND).T
    assert (cosines[40:, 40:] == 1).all()
    assert (cosines[40:, :40] == 0).all()


def test_a_row_of_zeros_stays_one():
    assert unit_length(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
