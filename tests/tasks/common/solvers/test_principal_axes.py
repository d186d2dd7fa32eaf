import errno
import os

import numpy as np
import pytest

from graft.tasks.common.core import scratch
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.solvers import principal_axes
from graft.tasks.common.solvers.principal_axes import rotate

D = 8


@pytest.fixture(name="raw_ND")
def raw():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(500, D)) @ rng.normal(size=(D, D)) + 3).astype(np.float32)


def standardised(raw_ND, found):
    return (raw_ND - found.mean_D) / found.scale_D


def test_the_rotated_rows_are_the_standardised_ones_along_other_axes(raw_ND):
    found, rows_NR = rotate(raw_ND, np.ones(500), None)

    assert np.allclose(rows_NR @ found.axes_DR.T, standardised(raw_ND, found), atol=1e-4)
    assert np.allclose(found.axes_DR.T @ found.axes_DR, np.eye(D), atol=1e-5)


def test_along_the_axes_rows_do_not_go_together(raw_ND):
    found, rows_NR = rotate(raw_ND, np.ones(500), None)

    assert np.allclose(np.cov(rows_NR.T, bias=True), np.diag(found.variance_R), atol=1e-4)


def test_fewer_rows_than_features_have_as_many_axes_as_rows(raw_ND):
    wide_ND = np.random.default_rng(1).normal(size=(5, 40)).astype(np.float32)

    found, rows_NR = rotate(wide_ND, np.ones(5), None)

    assert rows_NR.shape == (5, 5)
    assert np.allclose(rows_NR @ found.axes_DR.T, standardised(wide_ND, found), atol=1e-5)


@pytest.mark.parametrize("n", [500, 5])
def test_weights_have_one_meaning_in_both_forms(raw_ND, n):
    found, rows_NR = rotate(raw_ND[:n], np.ones(n), None)
    theta_RK = np.random.default_rng(2).normal(size=(rows_NR.shape[1] + 1, 3))

    weight_KD, bias_K = found.out_of(theta_RK)

    assert np.allclose(raw_ND[:n] @ weight_KD.T + bias_K, rows_NR @ theta_RK[:-1] + theta_RK[-1], atol=1e-3)
    assert weight_KD.dtype == bias_K.dtype == np.float32


def test_many_rows_lie_in_a_file_that_nobody_need_remove(raw_ND, tmp_path, monkeypatch):
    _, in_memory = rotate(raw_ND, np.ones(500), tmp_path)
    monkeypatch.setattr(scratch, "IN_MEMORY", 100)

    _, mapped = rotate(raw_ND, np.ones(500), tmp_path / "scratch")

    assert isinstance(mapped, np.memmap)
    assert not isinstance(in_memory, np.memmap)
    assert mapped.tobytes() == in_memory.tobytes()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_problems_hold_at_once_is_counted_together(raw_ND, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", sum(rows.nbytes for rows in scratch._IN_USE.values()) + raw_ND.nbytes)

    _, first = rotate(raw_ND, np.ones(500), tmp_path)
    _, second = rotate(raw_ND, np.ones(500), tmp_path)
    of_first = first[10:]
    del first
    _, third = rotate(raw_ND, np.ones(500), tmp_path)
    del of_first
    _, fourth = rotate(raw_ND, np.ones(500), tmp_path)

    assert isinstance(second, np.memmap)
    assert isinstance(third, np.memmap), "a part of the first is still in use"
    assert not isinstance(fourth, np.memmap)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot set room aside")
def test_a_full_disk_is_told_before_anything_is_written(raw_ND, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch, "IN_MEMORY", 100)
    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(GraftError, match=r"scratch cannot hold(.|\n)*No space(.|\n)*GiB"):
        rotate(raw_ND, np.ones(500), tmp_path / "scratch")


def test_the_room_in_a_file_is_set_aside(raw_ND, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 100)
    asked = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _, *span: asked.append(span), raising=False)

    rotate(raw_ND, np.ones(500), tmp_path)

    assert asked == [(0, raw_ND.nbytes)]


def test_half_precision_is_read_as_it_is(raw_ND):
    _, rows_NR = rotate(raw_ND.astype(np.float16), np.ones(500), None)

    assert rows_NR.dtype == np.float32


def test_a_few_rows_from_all_over_find_the_axes_of_many(monkeypatch):
    rng = np.random.default_rng(3)
    many_ND = (rng.normal(size=(4000, D)) * np.geomspace(0.1, 10, D)).astype(np.float32)
    monkeypatch.setattr(principal_axes, "BLOCK", 16)

    found, rows_NR = rotate(many_ND, np.ones(4000), None)

    assert np.allclose(rows_NR @ found.axes_DR.T, standardised(many_ND, found), atol=1e-4)
    assert np.allclose(found.variance_R, rows_NR.var(axis=0), rtol=0.6)


def test_few_features_are_sampled_from_all_over_too(monkeypatch):
    late_ND = np.random.default_rng(3).normal(size=(4000, 2)).astype(np.float32)
    late_ND[16:, 1] = late_ND[16:, 0]  # of which the first block knows nothing
    monkeypatch.setattr(principal_axes, "BLOCK", 16)

    found, rows_NR = rotate(late_ND, np.ones(4000), None)

    assert np.allclose(found.variance_R, rows_NR.var(axis=0), atol=0.2)


def test_standardised_features_have_mean_zero_and_a_variance_of_at_most_one():
    raw_ND = np.random.default_rng(0).normal(3, np.geomspace(0.01, 10, 8), (500, 8)).astype(np.float32)

    x_ND = standardised(raw_ND, rotate(raw_ND, np.ones(500), None)[0])

    assert np.allclose(x_ND.mean(axis=0), 0, atol=1e-5)
    assert (x_ND.std(axis=0) <= 1).all()
    assert x_ND.std(axis=0)[-1] > 0.9


def test_a_feature_that_hardly_varies_is_not_blown_up():
    raw_ND = np.random.default_rng(0).normal(0, [1, 1, 1e-6], (500, 3)).astype(np.float32)

    assert standardised(raw_ND, rotate(raw_ND, np.ones(500), None)[0]).std(axis=0)[2] < 1e-4


def test_features_that_never_vary_stay_finite():
    raw_ND = np.full((10, 3), 4.0, np.float32)

    found, rows_NR = rotate(raw_ND, np.ones(10), None)

    assert (rows_NR == 0).all()
    assert np.isfinite(found.axes_DR).all()


def test_standardising_weighs_rows():
    raw_ND = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    times = np.arange(20) % 3 + 1

    weighted, _ = rotate(raw_ND, times.astype(float), None)
    repeated, _ = rotate(np.repeat(raw_ND, times, axis=0), np.ones(times.sum()), None)

    assert np.allclose(weighted.mean_D, repeated.mean_D, atol=1e-6)
    assert np.allclose(weighted.scale_D, repeated.scale_D, atol=1e-6)
    assert np.allclose(weighted.variance_R, repeated.variance_R, atol=1e-5)
