import numpy as np
import pytest
import torch

from graft.tasks.finetune.mixing import Mix, draw, mix, partners

RNG = np.random.default_rng


def test_nothing_is_mixed_if_nothing_shall_be():
    assert draw(8, 0.0, 0.0, RNG(0)) is None


def test_partners_are_neighbours_and_an_odd_one_has_itself():
    assert partners(5).tolist() == [1, 0, 3, 2, 4]


def test_mixup_is_the_weighted_mean_of_two_images():
    x = torch.rand(4, 3, 8, 8)
    how = Mix(np.array([0.7, 0.7, 1.0, 1.0]), np.full((4, 4), np.nan))
    mixed, share = mix(x, how)
    assert torch.allclose(mixed[0], 0.7 * x[0] + 0.3 * x[1])
    assert torch.allclose(mixed[1], 0.7 * x[1] + 0.3 * x[0])
    assert torch.equal(mixed[2], x[2])
    assert share.tolist() == pytest.approx([0.7, 0.7, 1.0, 1.0])


def test_cutmix_pastes_a_box_of_the_partner_and_its_share_is_the_area_that_is_left():
    x = torch.stack([torch.zeros(1, 10, 10), torch.ones(1, 10, 10)])
    mixed, share = mix(x, Mix(np.array([0.8, 0.8]), np.tile([0.0, 0.5, 0.0, 0.4], (2, 1))))
    assert mixed[0, 0, :5, :4].min() == 1
    assert mixed[0].sum() == 20
    assert share.tolist() == pytest.approx([0.8, 0.8])
    assert 1 - mixed[0].mean() == pytest.approx(share[0].item())


@pytest.mark.parametrize("seed", range(20))
def test_the_share_of_a_drawn_box_is_that_of_the_mixed_image(seed):
    x = torch.stack([torch.zeros(1, 64, 64), torch.ones(1, 64, 64)])
    mixed, share = mix(x, draw(2, 0.0, 1.0, RNG(seed)))
    assert 1 - mixed[0].mean().item() == pytest.approx(share[0].item(), abs=1e-6)


def test_with_both_each_pair_is_mixed_by_one_of_them():
    how = draw(200, 0.2, 1.0, RNG(0))
    cuts = ~np.isnan(how.box_B4[:, 0])
    assert 40 < cuts.sum() < 160
    assert np.array_equal(cuts[::2], cuts[1::2])
    assert np.array_equal(how.share_B[::2], how.share_B[1::2])


def test_parts_of_a_batch_are_mixed_as_the_whole():
    x, how = torch.rand(8, 3, 6, 6), draw(8, 0.4, 1.0, RNG(3))
    whole, shares = mix(x, how)
    parts = [mix(x[part], how.part(part)) for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)
    assert torch.equal(torch.cat([share for _, share in parts]), shares)


def test_tokens_can_be_mixed_too():
    x = torch.rand(2, 5, 7)
    mixed, _ = mix(x, Mix(np.array([0.5, 0.5]), np.full((2, 4), np.nan)))
    assert torch.allclose(mixed[0], (x[0] + x[1]) / 2)
