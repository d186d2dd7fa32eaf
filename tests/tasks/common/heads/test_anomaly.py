"""Heads that know good images only."""

from __future__ import annotations

import numpy as np
import pytest

from graft.tasks.common.heads.anomaly import enlarged, image_scores, resampling
from graft.tasks.common.heads.gaussian import GaussianHead, coarser
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.heads.patches import PatchesHead
from graft.tasks.common.heads.subspace import SubspaceHead

C, H, W = 3, 4, 5
SHAPE = {"channels": C, "height": H, "width": W, "classes": []}


def patches_head(**changed: object) -> PatchesHead:
    rng = np.random.default_rng(0)
    arrays = {
        "bank": rng.normal(size=(30, C)).astype(np.float16),
        "mean": np.ones(C, np.float32),
        "turn": np.eye(C, dtype=np.float32),
        "good": np.arange(1.0, 20.0),
        "share": np.ones(19),
    }
    return PatchesHead(**{**arrays, **SHAPE, "top": 1, **changed})


def subspace_head() -> SubspaceHead:
    turn = np.array([[0.0], [0.0], [2.0]], np.float32)
    return SubspaceHead(turn, np.zeros(C, np.float32), np.arange(3.0), np.ones(3), C, H, W, 1, [])


def gaussian_head() -> GaussianHead:
    """Of the last two channels, at each place."""
    rng = np.random.default_rng(2)
    mean, turn = rng.normal(size=(H, W, 2)), rng.normal(size=(H, W, 2, 2))
    single = (mean.astype(np.float32), turn.astype(np.float32))
    return GaussianHead(*single, np.arange(3.0), np.ones(3), C, H, W, 1, [])


def maps(n: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, H * W * C)).astype(np.float16)


def test_a_patch_scores_its_distance_to_the_nearest_of_the_bank():
    head, maps_BD = patches_head(), maps()
    x_BHWC = maps_BD.astype(np.float64).reshape(-1, H, W, C) - 1
    expected = np.linalg.norm(x_BHWC[..., None, :] - head.bank.astype(np.float64), axis=-1).min(axis=-1)
    np.testing.assert_allclose(head.patch_scores(maps_BD), expected, atol=1e-3)


def test_a_patch_scores_the_length_of_what_is_outside_the_subspace():
    maps_BD = maps()
    expected = 2 * np.abs(maps_BD.astype(np.float32).reshape(-1, H, W, C)[..., 2])
    np.testing.assert_allclose(subspace_head().patch_scores(maps_BD), expected, rtol=1e-5)


def test_a_place_scores_its_distance_from_the_gaussian_there():
    head, maps_BD = gaussian_head(), maps()
    x_BHW2 = maps_BD.astype(np.float32).reshape(-1, H, W, C)[..., 1:] - head.mean
    distance_BHW = np.linalg.norm(np.einsum("bhwe,hwef->bhwf", x_BHW2, head.turn), axis=-1)
    down_HH, across_WW = head.enlarging()
    np.testing.assert_allclose(head.patch_scores(maps_BD), down_HH @ distance_BHW @ across_WW.T, rtol=1e-4)


def test_coarser_places_are_those_that_the_map_was_enlarged_from():
    places_BhwE = np.random.default_rng(0).normal(size=(2, 3, 2, 3)).astype(np.float32)
    map_BHWE = np.einsum("Hh,bhwe,Ww->bHWe", resampling(3, 6), places_BhwE, resampling(2, 4))
    map_BHWC = np.concatenate([np.ones((2, 6, 4, 2), np.float32), map_BHWE], axis=3)
    np.testing.assert_allclose(coarser(map_BHWC, (3, 2, 3)), places_BhwE, atol=1e-5)


def test_an_image_scores_the_mean_of_its_largest_smoothed_scores():
    maps_BD = maps()
    scores = patches_head().heat(maps_BD, (H, W)).reshape(4, -1)
    np.testing.assert_allclose(patches_head().output(maps_BD)[:, 0], scores.max(axis=1), rtol=1e-6)
    expected = np.sort(scores, axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(patches_head(top=3).output(maps_BD)[:, 0], expected, rtol=1e-6)


def test_smoothing_keeps_the_level_and_lowers_a_single_peak():
    scores_BHW = np.ones((2, 28, 30), np.float32)
    scores_BHW[1, 10, 10] = 3
    flat, peak = image_scores(scores_BHW, 1)
    assert flat == pytest.approx(1, abs=1e-6)
    assert 1.5 < peak < 2.5


def test_the_score_of_an_image_does_not_depend_on_the_others():
    maps_BD = maps(70)
    np.testing.assert_allclose(patches_head().output(maps_BD)[66:67], patches_head().output(maps_BD[66:67]), rtol=1e-5)


def test_no_images_have_no_scores():
    assert patches_head().output(maps(0)).shape == (0, 1)
    assert patches_head().heat(maps(0), (8, 8)).shape == (0, 8, 8)


def test_maps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 60\)"):
        patches_head().output(np.zeros((2, 59), np.float16))


@pytest.mark.parametrize("head", [patches_head(), subspace_head(), gaussian_head()])
def test_a_saved_head_gives_the_same_scores(head, tmp_path):
    head.save(tmp_path)
    loaded = load_head(tmp_path)
    assert (loaded.kind, loaded.task, loaded.classes, loaded.dimension) == (head.kind, "anomaly", [], H * W * C)
    np.testing.assert_array_equal(loaded.output(maps()), head.output(maps()))
    np.testing.assert_array_equal(loaded.p_values(np.array([2.5])), head.p_values(np.array([2.5])))


def test_a_p_value_counts_the_good_images_that_score_as_high():
    p_B = patches_head().p_values(np.array([0.0, 18.5, 19.0, 100.0]))
    np.testing.assert_allclose(p_B, [1.0, 2 / 20, 2 / 20, 1 / 20])


def test_a_group_of_images_counts_once_in_a_p_value():
    head = patches_head(good=np.array([1.0, 2.0, 3.0, 4.0]), share=np.array([0.5, 1.0, 0.5, 1.0]))
    np.testing.assert_allclose(head.p_values(np.array([2.5])), (1 + 1.5) / (1 + 3))


def test_a_score_map_has_the_size_of_the_picture_and_its_peak_at_the_place():
    scores = np.zeros((1, 10, 20), np.float32)
    scores[0, 7, 3] = 1.0
    large = enlarged(scores, (100, 200))[0]
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert abs(row - 75) <= 1
    assert abs(column - 35) <= 1


def test_a_score_map_keeps_the_unit_of_the_scores():
    np.testing.assert_allclose(enlarged(np.full((2, 1, 3), 7.0, np.float32), (30, 50)), 7.0, rtol=1e-5)
