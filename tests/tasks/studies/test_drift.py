"""Whether two samples are of one distribution. Everything is seeded: what is tested either always holds or never."""

from __future__ import annotations

import numpy as np
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.studies.drift import (
    AXES,
    compare,
    coordinates,
    deals,
    even,
    far_test,
    gaussian_kernel,
    mmd_test,
    nearest_distances,
    squared_distances,
)

HOW = {"significance": 0.01, "permutations": 499, "far_quantile": 0.95}


def normal(seed, count, dimension=8):
    """Features that are not centred, as a network's are not."""
    return 1 + np.random.default_rng(seed).normal(0, 0.3, (count, dimension))


def apart(count):
    """Each image a group of its own."""
    return np.arange(count)


def direct_mmd2(k_NN, first):
    """Gretton et al. 2012, equation 3, term by term."""
    one, two = np.flatnonzero(first), np.flatnonzero(~first)
    within = [np.mean([k_NN[i, j] for i in side for j in side if i != j]) for side in (one, two)]
    return sum(within) - 2 * np.mean([k_NN[i, j] for i in one for j in two])


def test_mmd_is_the_sum_over_all_pairs():
    k_NN = gaussian_kernel(squared_distances(normal(0, 12)))

    _, mmd2 = mmd_test(k_NN, deals(apart(12), 7, 10, 0), 0.01)

    assert mmd2 == pytest.approx(direct_mmd2(k_NN, np.arange(12) < 7), abs=1e-12)


def test_its_p_is_the_share_of_deals_that_part_the_images_as_much():
    k_NN, sides_NP = gaussian_kernel(squared_distances(normal(1, 12))), deals(apart(12), 7, 199, 0)
    direct = np.array([direct_mmd2(k_NN, side) for side in sides_NP.T])

    found, _ = mmd_test(k_NN, sides_NP, 0.01)

    assert found.p == pytest.approx((direct >= direct[0] - 1e-12).mean())


def test_the_kernel_is_as_wide_as_the_median_distance():
    d2_NN = squared_distances(normal(2, 9))
    median = np.median([d2_NN[i, j] for i in range(9) for j in range(i)])

    assert gaussian_kernel(d2_NN)[0, 1] == pytest.approx(np.exp(-d2_NN[0, 1] / (2 * median)))


def test_a_nearest_distance_is_to_the_first_side_and_to_another_group():
    z_NA, groups_N = normal(3, 12), np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 8])
    sides_NP = deals(groups_N, 6, 20, 0)

    found = nearest_distances(squared_distances(z_NA), sides_NP, groups_N)

    for p in range(sides_NP.shape[1]):
        for i in range(12):
            others = [j for j in np.flatnonzero(sides_NP[:, p]) if groups_N[j] != groups_N[i]]
            assert found[i, p] == pytest.approx(min(np.linalg.norm(z_NA[i] - z_NA[j]) for j in others))


def test_far_is_beyond_what_all_but_few_reference_images_keep():
    line = np.concatenate([np.arange(20.0), [18.4, 22, 30]])[:, None]  # each reference image is 1 from its nearest
    line[0] = -4  # but one, which is 5 from it

    found, limit, nearest = far_test(squared_distances(line), deals(apart(23), 20, 99, 0), apart(23), 0.9, 0.01)

    assert limit == pytest.approx(1.0)  # the second largest of 20
    assert nearest[20:] == pytest.approx([0.4, 3, 11])
    assert found.value == pytest.approx(2 / 3)


def test_of_images_that_are_alike_a_p_value_is_as_likely_to_be_anything():
    rounds = 200
    found = [
        compare(normal([s, 0], 40), normal([s, 1], 25), seed=s, significance=0.05, permutations=99, far_quantile=0.9)
        for s in range(rounds)
    ]

    for level in (0.05, 0.2, 0.5, 0.8):
        slack = 3 * np.sqrt(level * (1 - level) / rounds)
        assert np.mean([one.mmd.p <= level for one in found]) == pytest.approx(level, abs=slack)
        assert np.mean([one.far.p <= level for one in found]) <= level + slack  # shares are equal now and then
    assert np.mean([one.verdict == "drift" for one in found]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / rounds)


def test_a_small_shift_of_all_is_seen_in_the_whole_and_in_no_single_image():
    found = compare(normal(4, 300), normal(5, 200) + 0.2 * np.eye(8)[0], **HOW)

    assert (found.verdict, found.tests) == ("drift", ("mmd",))


def test_a_few_strange_images_are_seen_as_far_though_the_whole_has_not_moved():
    today = normal(7, 200)
    today[:20] += np.random.default_rng(0).choice([-2.0, 2.0], (20, 8))

    found = compare(normal(6, 300), today, **HOW)

    assert "far" in found.tests
    assert found.far.value > found.far.chance
    assert set(np.argsort(found.distances)[-10:]) < set(range(20))


def test_images_that_are_alike_are_no_drift():
    found = compare(normal(8, 300), normal(9, 200), **HOW)

    assert (found.verdict, found.tests) == ("none", ())
    assert found.mmd.value <= found.mmd.chance


def test_the_shift_is_larger_the_more_images_are_new():
    strange = normal(11, 100) + 0.5 * np.eye(8)[0]
    found = [
        compare(normal(10, 300), np.concatenate([normal(12, 200 - new), strange[:new]]), **HOW).mmd.value
        for new in (20, 50, 100)
    ]

    assert found == sorted(found)


def test_a_shift_below_the_least_that_matters_is_no_drift():
    samples = normal(4, 300), normal(5, 200) + 0.2 * np.eye(8)[0]
    value = compare(*samples, **HOW).mmd.value

    assert compare(*samples, **HOW, min_effect=value * 0.99).verdict == "drift"
    assert compare(*samples, **HOW, min_effect=value * 1.01).verdict == "none"


def test_images_of_one_group_are_one_piece_of_evidence():
    scenes = np.random.default_rng(0).normal(0, 1, (12, 8))
    groups_N = np.repeat(np.arange(12), 10)
    images = 3 + scenes[groups_N] + 0.1 * normal(13, 120)

    assert compare(images[:80], images[80:], **HOW).verdict == "drift"
    assert compare(images[:80], images[80:], **HOW, groups_N=groups_N).verdict == "none"


def scenes(seed, groups, size):
    """As many images of each of some groups, which differ more between than within."""
    return np.repeat(normal(seed, groups), size, axis=0) + 0.3 * (normal(seed + 1000, groups * size) - 1)


def coded(*sides):
    """Group codes, of pairs (groups, images in each)."""
    sizes = np.concatenate([np.full(groups, size) for groups, size in sides])
    return np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize(
    ("ours", "others", "ways", "needed"), [(5, 1, 6, 6), (150, 1, 151, 2), (5, 4, 126, 6), (5, 5, 126, 6)]
)
def test_too_few_groups_to_tell_drift_from_chance_are_told_with_how_many_it_takes(ours, others, ways, needed):
    images = np.concatenate([scenes(1, ours, 20), 20 * 0.3 + scenes(2, others, 20)])

    with pytest.raises(DataError, match="too few groups") as caught:
        compare(images[: 20 * ours], images[20 * ours :], **HOW, groups_N=coded((ours + others, 20)))

    assert caught.value.got == f"{others} of the new images and {ours} of the model's, with {ways} permutations"
    assert caught.value.allowed.startswith(f"{needed} or more groups of new images with {ours} of the model's: ")
    assert caught.value.allowed.endswith("= 200 permutations or more")


@pytest.mark.parametrize(("ours", "others"), [(5, 6), (199, 1), (6, 4)])
def test_the_fewest_groups_that_are_taken_can_say_drift(ours, others):
    images = np.concatenate([scenes(1, ours, 4), 20 * 0.3 * np.eye(8)[0] + scenes(2, others, 4)])

    found = compare(images[: 4 * ours], images[4 * ours :], **HOW, groups_N=coded((ours + others, 4)))

    assert found.verdict == "drift"


def test_few_groups_are_dealt_in_each_way_once():
    sides_NP = deals(coded((7, 2)), 6, 499, 0)

    assert sides_NP.shape == (14, 35)
    assert sides_NP[:, 0].tolist() == [True] * 6 + [False] * 8
    assert len(np.unique(sides_NP, axis=1).T) == 35
    assert (sides_NP.sum(axis=0) == 6).all()


UNEVEN = [((20, 50), (200, 1)), ((200, 1), (20, 10))]


@pytest.mark.parametrize(("ours", "others"), UNEVEN, ids=["groups, single images", "single images, groups"])
def test_a_shift_is_seen_though_only_one_side_has_groups(ours, others):
    for seed in range(5):
        today = scenes(100 + seed, *others) + 2 * 0.3 * np.eye(8)[0]

        assert compare(scenes(seed, *ours), today, **HOW, groups_N=coded(ours, others)).verdict == "drift"


@pytest.mark.parametrize(("ours", "others"), UNEVEN, ids=["groups, single images", "single images, groups"])
def test_chance_is_called_drift_as_rarely_as_asked_though_only_one_side_has_groups(ours, others):
    how = {"significance": 0.1, "permutations": 99, "far_quantile": 0.95}
    verdicts = [
        compare(scenes(seed, *ours), scenes(100 + seed, *others), **how, groups_N=coded(ours, others)).verdict
        for seed in range(40)
    ]

    assert verdicts.count("drift") <= 9  # a binomial of 40 and 0.1 is above in 1 % of cases


def test_of_each_group_as_many_are_compared_as_the_smaller_ones_have():
    groups_N = coded((4, 10), (5, 3))

    places = even(groups_N, 40, 0)

    assert np.bincount(groups_N[places]).tolist() == [3] * 9
    assert places.tolist() == sorted(set(places.tolist())) == even(groups_N, 40, 0).tolist()
    assert places.tolist() != even(groups_N, 40, 1).tolist()


def test_groups_of_one_size_are_compared_whole():
    assert even(coded((6, 10)), 30, 0).tolist() == list(range(60))


def test_what_was_compared_is_told():
    found = compare(scenes(1, 20, 5), scenes(2, 30, 1), **HOW, groups_N=coded((20, 5), (30, 1)))

    assert (found.reference_groups, found.groups) == (20, 30)
    assert (len(found.reference_distances), len(found.distances)) == (20, 30)
    assert found.places[20:].tolist() == list(range(100, 130))


def test_a_group_is_dealt_whole():
    groups_N = np.repeat(np.arange(8), 3)

    sides_NP = deals(groups_N, 12, 50, 0)

    assert (sides_NP.reshape(8, 3, 51).std(axis=1) == 0).all()
    assert (sides_NP.sum(axis=0) == 12).all()
    assert len(np.unique(sides_NP, axis=1).T) > 10


def test_the_first_deal_is_how_it_is():
    assert deals(apart(5), 3, 4, 0)[:, 0].tolist() == [True, True, True, False, False]


def test_the_scale_of_the_features_does_not_matter():
    one, two = (compare(scale * normal(14, 60), scale * normal(15, 40), **HOW) for scale in (1, 1e-4))

    assert one.mmd.value == pytest.approx(two.mmd.value)
    assert one.distances == pytest.approx(two.distances)


@pytest.mark.parametrize("dimension", [40, 900])
def test_axes_are_uncorrelated_and_of_equal_spread_whether_images_or_features_are_more(dimension):
    z_NA = coordinates(normal(16, 400, dimension))

    assert z_NA.shape == (400, AXES)
    assert z_NA.T @ z_NA / 400 == pytest.approx(np.eye(AXES), abs=1e-8)


def test_few_images_are_compared_in_few_axes():
    assert coordinates(normal(17, 50, 900)).shape == (50, 5)
    assert coordinates(normal(17, 12, 900)).shape == (12, 2)


@pytest.mark.parametrize("image", [np.zeros(8), np.ones(8)], ids=["zeros", "ones"])
def test_images_that_are_all_the_same_are_no_drift(image):
    found = compare(np.tile(image, (30, 1)), np.tile(image, (20, 1)), **HOW)

    assert (found.verdict, found.mmd.p, found.far.p) == ("none", 1.0, 1.0)
    assert np.isfinite(found.axes_N2).all()


def test_the_same_images_give_the_same_answer():
    one, two = (compare(normal(18, 60), normal(19, 40), **HOW) for _ in range(2))

    assert (one.mmd, one.far, one.tests) == (two.mmd, two.far, two.tests)
