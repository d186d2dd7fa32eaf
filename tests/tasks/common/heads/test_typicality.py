import numpy as np
import pytest
from safetensors.numpy import save_file

from graft.tasks.common.heads.typicality import NEIGHBOUR, Typicality

RNG = np.random.default_rng(0)
KNOWN_ND = RNG.normal(size=(60, 8)).astype(np.float32)


def full_conformal(known_ND, group_N, new_D):
    """As the definition says: every image among all others of other groups, the new one a group by itself."""
    x = np.vstack([known_ND, new_D]).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    group = np.append(group_N, max(group_N) + 1)
    k = min(NEIGHBOUR, min((group != g).sum() for g in group))
    score = [np.sort((1 - x @ x[i])[group != group[i]])[k - 1] for i in range(len(x))]
    share = {g: np.mean([score[i] >= score[-1] - 1e-7 for i in np.flatnonzero(group == g)]) for g in set(group)}
    return sum(share.values()) / len(share)


@pytest.mark.parametrize("groups", [60, 12, 2, 1])
def test_the_p_value_is_that_of_full_conformal_prediction(groups):
    group_N = RNG.permutation(np.arange(60) % groups)
    new_MD = RNG.normal(size=(20, 8)) * 2
    expected = [full_conformal(KNOWN_ND, group_N, new_D) for new_D in new_MD]
    assert Typicality.of(KNOWN_ND, group_N).p_values(new_MD) == pytest.approx(expected)


@pytest.mark.parametrize("known", [1, 2, 5])
def test_a_few_images_are_enough_for_a_p_value(known):
    p_M = Typicality.of(KNOWN_ND[:known], np.arange(known)).p_values(RNG.normal(size=(9, 8)))
    assert ((p_M > 0) & (p_M <= 1)).all()
    assert p_M.min() >= 1 / (known + 1)


def test_an_image_unlike_all_others_has_the_smallest_p_value():
    alike_ND = np.float32([1, 0, 0]) + 0.1 * RNG.normal(size=(40, 3)).astype(np.float32)
    p_M = Typicality.of(alike_ND, np.arange(40)).p_values(np.array([[1.0, 0, 0], [-1.0, 0, 0]]))
    assert p_M[1] == pytest.approx(1 / 41)
    assert p_M[0] > 0.5


def test_the_length_of_features_and_their_precision_do_not_matter():
    new_MD = RNG.normal(size=(5, 8))
    p_M = Typicality.of(KNOWN_ND, np.arange(60)).p_values(new_MD)
    assert Typicality.of((KNOWN_ND * 7).astype(np.float16), np.arange(60)).p_values(3 * new_MD) == pytest.approx(p_M)


def test_it_is_loaded_from_the_reference_of_a_package(tmp_path):
    save_file({"features": KNOWN_ND, "groups": np.arange(60)}, tmp_path / "reference.safetensors")
    assert np.array_equal(Typicality.load(tmp_path).unit_nD, Typicality.of(KNOWN_ND, np.arange(60)).unit_nD)


def test_a_package_without_reference_images_has_none(tmp_path):
    assert Typicality.load(tmp_path) is None
    save_file({"features": KNOWN_ND[:0], "groups": np.arange(0)}, tmp_path / "reference.safetensors")
    assert Typicality.load(tmp_path) is None
