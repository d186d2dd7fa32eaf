import pytest
import torch
from torch import nn

from graft.tasks.finetune.optimizer import WeightAverage, rate_at


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    rates = [rate_at(done, peak=1.0, warmup=0.2) for done in (0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_an_average_follows_the_weights_and_replaces_them_only_within_the_block():
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 1.0)
    average = WeightAverage(layer, keep=0.5)
    nn.init.constant_(layer.weight, 3.0)
    average.update(step=100)
    with average.in_use():
        assert layer.weight.item() == 2.0
    assert layer.weight.item() == 3.0


def test_without_an_average_the_weights_are_used_as_they_are():
    layer = nn.Linear(1, 1)
    before = layer.weight.clone()
    average = WeightAverage(layer, keep=0)
    average.update(step=0)
    with average.in_use():
        assert torch.equal(layer.weight, before)
    assert average.values == []
