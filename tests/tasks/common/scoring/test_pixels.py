"""Pixel AUROC and AU-PRO; a threshold at every score, and scikit-learn, are the reference."""

import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

from graft.tasks.common.scoring import pixels
from graft.tasks.common.scoring.pixels import PixelRanking

SHAPE = (24, 31)


def pictures(seed, images=6, levels=None):
    """(score maps, masks): a few rectangles of defects, two may touch at a corner, and good images."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for number in range(images):
        mask = np.zeros(SHAPE, bool)
        if number % 3:
            for _ in range(3):
                y, x, h, w = rng.integers((0, 0, 1, 1), (20, 26, 6, 9))
                mask[y : y + h, x : x + w] = True
        score = rng.normal(size=SHAPE) + 1.5 * mask * (rng.random(SHAPE) < 0.8)
        maps.append((score if levels is None else np.round(score * levels) / levels).astype(np.float32))
        masks.append(mask)
    return maps, masks


def ranking(maps, masks):
    found = PixelRanking()
    for score, mask in zip(maps, masks, strict=True):
        found.add(score, mask)
    return found


def exact_au_pro(maps, masks, limit):
    """Bergmann et al. 2019, by a threshold at every score that occurs."""
    labelled = [label(mask, np.ones((3, 3))) for mask in masks]
    regions = [score[of == k + 1] for score, (of, count) in zip(maps, labelled, strict=True) for k in range(count)]
    normal = np.concatenate([score[~mask] for score, mask in zip(maps, masks, strict=True)])
    thresholds = np.unique(np.concatenate([score.ravel() for score in maps]))[::-1]
    false = np.array([0.0] + [(normal >= t).mean() for t in thresholds])
    overlap = np.array([0.0] + [np.mean([(region >= t).mean() for region in regions]) for t in thresholds])
    kept = false <= limit
    false, overlap = np.append(false[kept], limit), np.append(overlap[kept], np.interp(limit, false, overlap))
    return np.trapezoid(overlap, false) / limit


@pytest.mark.parametrize("seed", range(3))
def test_au_pro_is_that_of_a_threshold_at_every_score(seed):
    maps, masks = pictures(seed)
    found = ranking(maps, masks).au_pro()
    assert found.value == pytest.approx(exact_au_pro(maps, masks, 0.3), abs=found.error + 1e-12)
    assert found.error < 1e-3


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_equal_scores_share_a_bin_without_an_error(limit):
    maps, masks = pictures(3, levels=4)
    assert ranking(maps, masks).au_pro(limit).value == pytest.approx(exact_au_pro(maps, masks, limit))


@pytest.mark.parametrize("seed", range(3))
def test_pixel_auroc_is_scikit_learns_within_the_stated_error(seed):
    maps, masks = pictures(seed)
    found = ranking(maps, masks).auroc()
    expected = roc_auc_score(np.concatenate(masks).ravel(), np.concatenate(maps).ravel())
    assert found.value == pytest.approx(expected, abs=found.error + 1e-12)
    assert 0 < found.error < 1e-3


def test_a_small_region_counts_as_much_as_a_large_one():
    mask, score = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32)
    mask[2, 2], mask[10:20, 10:20] = True, True
    score[10:20, 10:20] = 1.0
    assert ranking([score], [mask]).au_pro().value == pytest.approx(0.5 + 0.5 * 0.3 / 2)
    assert ranking([score], [mask]).regions == 2


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = np.eye(5, dtype=bool)
    assert ranking([np.zeros((5, 5), np.float32)], [mask]).regions == 1


def test_constant_scores_are_no_better_than_chance():
    maps, masks = [np.full(SHAPE, 2.5, np.float32)], pictures(1)[1][1:2]
    assert ranking(maps, masks).auroc().value == pytest.approx(0.5)
    assert ranking(maps, masks).au_pro().value == pytest.approx(0.15)


@pytest.mark.parametrize("defect", [True, False])
def test_pixels_of_one_kind_have_no_metrics(defect):
    found = ranking([np.zeros(SHAPE, np.float32)], [np.full(SHAPE, defect)])
    assert found.auroc() is None
    assert found.au_pro() is None


def test_negative_scores_are_ranked_below_positive_ones():
    score = np.array([[-3.0, -1e-9, 0.0, 1e-9, 2.0]], np.float32)
    bins = pixels._bins(score)[0]
    assert (np.diff(bins) > 0).all()
    assert ranking([score], [score > 0]).auroc().value == pytest.approx(1.0)


def test_the_order_of_the_images_does_not_matter():
    maps, masks = pictures(2)
    one, other = ranking(maps, masks), ranking(maps[::-1], masks[::-1])
    assert one.au_pro().value == pytest.approx(other.au_pro().value, abs=1e-12)
    assert one.auroc() == other.auroc()
