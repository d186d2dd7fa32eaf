import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.scoring.decoded import scores
from graft.tasks.common.scoring.images import dice, iou, moved, of_resamples, overlap, psnr, ssim
from graft.tasks.common.scoring.pixel_threshold import best_threshold, counted


def slow_ssim(a, b):
    """One channel, as in Wang et al. 2004: an 11 x 11 Gaussian window of sigma 1.5, moved over the image."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            one, two = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_1, mean_2 = (window * one).sum(), (window * two).sum()
            var_1, var_2 = (window * (one - mean_1) ** 2).sum(), (window * (two - mean_2) ** 2).sum()
            both = (window * (one - mean_1) * (two - mean_2)).sum()
            above = (2 * mean_1 * mean_2 + 0.01**2) * (2 * both + 0.03**2)
            found.append(above / ((mean_1**2 + mean_2**2 + 0.01**2) * (var_1 + var_2 + 0.03**2)))
    return np.mean(found)


def test_psnr_is_that_of_the_mean_squared_error():
    assert psnr(np.full((1, 4, 4), 0.5), np.full((1, 4, 4), 0.4)) == pytest.approx(20.0)


def test_equal_images_have_a_psnr_of_100_and_an_ssim_of_1():
    image = np.random.default_rng(0).random((3, 20, 20))
    assert psnr(image, image) == pytest.approx(100)
    assert ssim(image, image) == pytest.approx(1.0)


def test_ssim_is_that_of_the_paper():
    rng = np.random.default_rng(1)
    a = rng.random((24, 30))
    b = np.clip(a + rng.normal(0, 0.2, a.shape), 0, 1)
    assert ssim(a[None], b[None]) == pytest.approx(slow_ssim(a, b), abs=1e-10)


def test_ssim_of_several_channels_is_their_mean():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 3, 16, 16))
    assert ssim(a, b) == pytest.approx(np.mean([ssim(a[c : c + 1], b[c : c + 1]) for c in range(3)]))


def test_ssim_of_an_image_smaller_than_the_window_is_known():
    assert ssim(np.full((1, 4, 4), 0.5), np.full((1, 4, 4), 0.5)) == pytest.approx(1.0)


def test_dice_and_iou_of_half_an_overlap():
    counts = np.array(overlap(np.array([[1, 1, 0]]) > 0, np.array([[0, 1, 1]]) > 0), float)
    assert counts.tolist() == [1, 2, 2]
    assert dice(counts) == pytest.approx(0.5)
    assert iou(counts) == pytest.approx(1 / 3)


def test_dice_of_nothing_found_and_nothing_marked_is_not_defined():
    assert np.isnan(dice(np.zeros(3)))
    assert np.isnan(iou(np.zeros(3)))


COUNTS = np.array([[0, 0, 10], [10, 10, 10], [3, 8, 4], [0, 0, 0]], float)


@pytest.mark.parametrize(("metric", "expected"), [("dice", 26 / 42), ("iou", 13 / 29)])
def test_the_metric_of_several_masks_is_of_all_their_pixels(metric, expected):
    assert of_resamples(COUNTS, metric, np.ones((1, 4)))[0] == pytest.approx(expected)
    assert moved(COUNTS, metric)[0] == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_the_influence_of_a_mask_is_how_much_the_metric_moves_with_its_weight(metric):
    _, moved_N = moved(COUNTS, metric)
    weight = 1 + 1e-6 * np.eye(4)
    slopes = (of_resamples(COUNTS, metric, weight) - of_resamples(COUNTS, metric, np.ones((1, 4)))) / 1e-6
    assert np.allclose(moved_N, slopes, atol=1e-5)


def test_a_metric_of_empty_masks_alone_is_not_defined():
    found = scores(pd.DataFrame(np.zeros((3, 3)), columns=["both", "found", "marked"]), np.arange(3), 0.95)
    assert np.isnan([found["dice"], found["dice_low"], found["dice_high"]]).all()


def test_the_interval_of_images_that_are_copies_is_wider():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"psnr": np.repeat(rng.normal(20, 2, 20), 5), "ssim": np.repeat(rng.random(20), 5)})
    alone, together = scores(table, np.arange(100), 0.95), scores(table, np.repeat(np.arange(20), 5), 0.95)
    for key in ("psnr", "ssim"):
        assert alone[key] == together[key]
        assert together[f"{key}_high"] - together[f"{key}_low"] > 1.8 * (alone[f"{key}_high"] - alone[f"{key}_low"])


def test_the_interval_of_psnr_is_that_of_students_t():
    psnr_N = np.random.default_rng(5).normal(20, 2, 30)
    found = scores(pd.DataFrame({"psnr": psnr_N, "ssim": 0.5}), np.arange(30), 0.95)
    assert found["psnr_high"] - found["psnr"] == pytest.approx(2.045 * psnr_N.std(ddof=1) / 30**0.5, rel=0.03)


@pytest.mark.parametrize("darker", [True, False])
def test_the_threshold_of_grey_values_finds_dark_and_bright_marks(darker):
    rng = np.random.default_rng(4)
    marked = np.zeros((40, 40), bool)
    marked[5:15, 5:15] = True
    grey = np.where(marked, 40 if darker else 210, 128) + rng.integers(-20, 20, marked.shape)
    found = best_threshold(counted(grey.astype(np.uint8), marked))
    assert found.darker == darker
    assert found.dice == 1.0
    assert np.array_equal(found.marked(grey.astype(np.uint8)), marked)


def test_without_a_marked_pixel_no_threshold_is_better_than_another():
    assert best_threshold(counted(np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool))).dice == 0.0
