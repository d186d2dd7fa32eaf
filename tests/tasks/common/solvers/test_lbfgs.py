import numpy as np
import pytest

from graft.tasks.common.solvers import lbfgs
from graft.tasks.common.solvers.lbfgs import Compact, Loops, remember, remembered

SHAPE = (9, 4)
"""Eight axes and the bias, of four classes."""

SMALL, LARGE = 10 * 1280 * 8, 1000 * 1280 * 8
"""Bytes of parameters."""


@pytest.fixture
def steps():
    """Seven steps on a convex quadratic, each with the change of its gradient; and the diagonal of its Hessian."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(36, 36))
    hessian = root @ root.T / 36 + np.eye(36)
    moved = rng.normal(size=(7, 36))
    return [(one.reshape(SHAPE), (hessian @ one).reshape(SHAPE)) for one in moved], np.diag(hessian).reshape(SHAPE)


def filled(store, steps, strengths=(0.1,)):
    """The store after the steps, which are dealt to the strengths in turn."""
    pairs, diagonal_RK = steps
    for l2, some in zip(strengths, np.array_split(np.arange(len(pairs)), len(strengths)), strict=True):
        store.at(l2, diagonal_RK + l2)
        for place in some:
            store.add(*pairs[place])
    return store


@pytest.mark.parametrize("strengths", [(0.1,), (10.0, 0.1), (0.01, 0.1, 3.0)])
@pytest.mark.parametrize("most", [3, 7])
@pytest.mark.parametrize("piece", [5, 2**16])
def test_the_compact_form_is_the_matrix_of_the_two_loops(steps, strengths, most, piece, monkeypatch):
    monkeypatch.setattr(lbfgs, "PIECE", piece)
    gradient_RK = np.random.default_rng(1).normal(size=SHAPE)
    loops, compact = filled(Loops(most), steps, strengths), filled(Compact(most, SHAPE, map), steps, strengths)

    expected = loops.times_inverse_hessian(gradient_RK)

    assert len(compact) == len(loops) == most
    assert np.allclose(compact.times_inverse_hessian(gradient_RK), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("store", [Loops(4), Compact(4, SHAPE, map)])
def test_the_last_step_is_what_its_change_is_turned_into(steps, store):
    filled(store, steps, (0.0,))
    moved_RK, bent_RK = steps[0][-1]

    assert np.allclose(store.times_inverse_hessian(bent_RK), moved_RK, atol=1e-4)


@pytest.mark.parametrize("store", [Loops(4), Compact(4, SHAPE, map)])
def test_without_steps_the_diagonal_is_all_that_is_known(steps, store):
    _, diagonal_RK = steps
    store.at(0.1, diagonal_RK)

    assert np.allclose(store.times_inverse_hessian(np.ones(SHAPE)), 1 / diagonal_RK)


@pytest.mark.parametrize("store", [Loops(4), Compact(4, SHAPE, map)])
def test_a_step_along_which_the_loss_is_not_convex_is_forgotten(steps, store):
    filled(store, steps)
    before = store.times_inverse_hessian(np.ones(SHAPE))

    store.add(np.ones(SHAPE), -np.ones(SHAPE))

    assert np.array_equal(store.times_inverse_hessian(np.ones(SHAPE)), before)


def test_few_parameters_take_two_loops_and_many_the_compact_form():
    assert isinstance(remember(1_000, (1281, 10), map), Loops)
    assert isinstance(remember(1_000, (1281, 1_000), map), Compact)


def test_as_many_steps_are_remembered_as_take_no_longer_than_the_rows():
    assert remembered(100, SMALL) == lbfgs.PAIRS
    assert remembered(2_000, LARGE) == 2_000 // lbfgs.PAIR_ROWS
    assert remembered(100_000, LARGE) == lbfgs.PAIRS
    assert remembered(100_000, 4 * LARGE) == lbfgs.PAIR_BYTES // (4 * LARGE)
    assert remembered(100, LARGE) == lbfgs.FEWEST
    assert remembered(100, 20 * LARGE) == lbfgs.LEAST


def test_few_parameters_give_the_bytes_of_the_two_loops_as_nocedal_wrote_them(steps):
    """So that the heads of ordinary data stay the same to the bit."""
    (pairs, diagonal_RK), gradient_RK = steps, np.random.default_rng(2).normal(size=SHAPE)
    result_RK, shares = gradient_RK.copy(), []
    for moved_RK, bent_RK in reversed(pairs):
        shares.append(float(np.vdot(moved_RK, result_RK)) / float(np.vdot(moved_RK, bent_RK)))
        result_RK = result_RK - shares[-1] * bent_RK
    moved_RK, bent_RK = pairs[-1]
    scale = float(np.vdot(moved_RK, bent_RK)) / float(np.vdot(bent_RK / diagonal_RK, bent_RK))
    result_RK = result_RK / diagonal_RK * scale
    for (moved_RK, bent_RK), share in zip(pairs, reversed(shares), strict=True):
        left = share - float(np.vdot(bent_RK, result_RK)) / float(np.vdot(moved_RK, bent_RK))
        result_RK = result_RK + left * moved_RK

    found = filled(remember(100, SHAPE, map), steps, (0.0,)).times_inverse_hessian(gradient_RK)

    assert found.tobytes() == result_RK.tobytes()
