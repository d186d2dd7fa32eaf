import numpy as np
import pytest

from graft.tasks.audit.subsets import growing, strata

SHARES = (0.01, 0.1, 0.5, 1.0)


def alone(n):
    return np.arange(n)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_larger_part_holds_the_smaller_ones(seed):
    stratum = np.repeat([0, 1, 2], [100, 50, 7])
    parts = [set(part) for part in growing(stratum, alone(157), SHARES, seed)]
    assert parts[0] < parts[1] < parts[2] < parts[3] == set(range(157))


def test_every_part_has_the_classes_shares_and_at_least_one_of_each():
    stratum = np.repeat([0, 1, 2], [100, 50, 7])
    counts = [list(np.bincount(stratum[part])) for part in growing(stratum, alone(157), SHARES, 0)]
    assert counts == [[1, 1, 1], [10, 5, 1], [50, 25, 4], [100, 50, 7]]


def test_another_seed_draws_other_parts():
    stratum = np.zeros(100, np.int64)
    assert list(growing(stratum, alone(100), [0.1], 0)[0]) != list(growing(stratum, alone(100), [0.1], 1)[0])


def test_groups_are_whole_or_absent():
    rng = np.random.default_rng(0)
    stratum, unit = rng.integers(0, 3, 200), rng.integers(0, 40, 200)
    for part in growing(stratum, unit, SHARES, 0):
        assert not set(unit[part]) & set(np.delete(unit, part))


def test_numbers_have_small_and_large_ones_in_every_part(pack_of):
    pack = pack_of(np.zeros((100, 2)), np.arange(100.0), task="regression")
    stratum = strata(pack, np.arange(100))
    assert list(np.bincount(stratum)) == [10] * 10
    (part,) = growing(stratum, alone(100), [0.1], 0)
    assert list(part // 10) == list(range(10))


def test_an_image_of_several_classes_counts_for_its_rarest(pack_of):
    pack = pack_of(np.zeros((5, 2)), ["a", "a|b", "a|b|c", "b", ""], task="multilabel")
    assert list(strata(pack, np.arange(5))) == [0, 0, 2, 1, 3]
