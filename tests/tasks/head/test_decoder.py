"""Training of the decoder."""

import numpy as np
import pytest
import torch

from graft.tasks.common.heads.decoder import Plan
from graft.tasks.head.decoder import Course, Lessons, Network, train

PLAN = Plan.of([(3, 8, 8), (4, 4, 4)], (1, 16, 16), 4, 8)


def lessons(images: int = 24) -> Lessons:
    """Images of a bright square on dark ground, and maps from which it can be told."""
    rng = np.random.default_rng(0)
    targets = np.zeros((images, 1, 16, 16), np.uint8)
    for target in targets:
        top, left = 2 * rng.integers(0, 6, 2)
        target[0, top : top + 6, left : left + 6] = 255
    fine = targets[:, :, ::2, ::2] / 255 + rng.normal(0, 0.1, (images, 3, 8, 8))
    coarse = targets[:, :, ::4, ::4] / 255 + rng.normal(0, 0.1, (images, 4, 4, 4))
    maps = np.hstack([fine.reshape(images, -1), coarse.reshape(images, -1)])
    return Lessons(maps.astype(np.float16), targets)


def epochs(target: str = "mask", number: int = 8, seed: int = 0):
    course = Course(target, number, learning_rate=0.01, seed=seed)
    return list(train(PLAN, lessons(), np.arange(18), np.arange(18, 24), course))


@pytest.mark.parametrize("target", ["image", "mask"])
def test_the_loss_on_held_out_images_falls(target):
    found = epochs(target)
    assert found[-1].held_loss < 0.6 * found[0].held_loss


def test_only_the_best_epoch_so_far_has_a_decoder():
    found = epochs()
    best = np.minimum.accumulate([one.held_loss for one in found])
    for one, least, before in zip(found, best, [np.inf, *best]):
        assert (one.head is not None) == (one.held_loss == least < before)


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    first, again, other = (epochs(number=1, seed=seed)[0].head.weights for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["last.weight"], other["last.weight"])


def test_the_saved_decoder_computes_what_was_trained():
    data = lessons(3)
    mean = [torch.full((c, 1, 1), 0.3) for c, _, _ in PLAN.maps]
    scale = [torch.full((c, 1, 1), 2.0) for c, _, _ in PLAN.maps]
    network = Network(PLAN, mean, scale, seed=1)
    with torch.inference_mode():
        expected = network(data.maps_ND).sigmoid().numpy()
    assert np.abs(network.head("mask").images(data.maps_ND) - expected).max() < 1e-5


def test_a_batch_without_a_marked_pixel_has_a_finite_loss():
    data = lessons()
    empty = Lessons(data.maps_ND, np.zeros_like(data.targets_NCHW))
    (found,) = train(PLAN, empty, np.arange(18), np.arange(18, 24), Course("mask", 1))
    assert np.isfinite([found.train_loss, found.held_loss]).all()


def test_a_constant_channel_does_not_spoil_the_training():
    data = lessons()
    maps = data.maps_ND.copy()
    maps[:, :64] = 5
    *_, last = train(PLAN, Lessons(maps, data.targets_NCHW), np.arange(18), np.arange(18, 24), Course("image", 2))
    assert np.isfinite(last.held_loss)


def test_training_begins_from_the_mean_of_the_targets():
    network = Network(PLAN, *_neutral(), seed=0)
    network.begin(0.3)
    with torch.inference_mode():
        p = network(lessons(4).maps_ND).sigmoid()
    assert float(p.median()) == pytest.approx(0.3, abs=0.05)


def _neutral():
    return [torch.zeros((c, 1, 1)) for c, _, _ in PLAN.maps], [torch.ones((c, 1, 1)) for c, _, _ in PLAN.maps]
