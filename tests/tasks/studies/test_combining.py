"""Which backbones are combined: those whose mean clearly has a lower loss."""

import numpy as np
import pytest

from graft.tasks.common.scoring.main_metric import loss
from graft.tasks.studies.combining import combine, forward, image_losses, scaled_losses, unit_p
from graft.tasks.studies.held import Held
from graft.tasks.studies.ranking import Probed


def held(target, unit_M=None, task="classification", metric="accuracy"):
    units = np.arange(len(target)) if unit_M is None else unit_M
    return Held(target, units, task, metric, 0.95, 0.02)


def heads(count, own, seed=0, images=600):
    """Heads for two classes: what all see alike, and what each alone sees, in shares of the variance."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, images)
    shared_M = rng.normal(size=images)
    logits = [
        2 * (target - 0.5) + np.sqrt(1 - own) * shared_M + np.sqrt(own) * rng.normal(size=images) for _ in range(count)
    ]
    return target, [np.stack([1 / (1 + np.exp(2 * x)), 1 / (1 + np.exp(-2 * x))], axis=1) for x in logits]


def probed(name, output_MK, target, speed=10.0):
    value = float((output_MK.argmax(axis=1) == target).mean())
    return Probed(name, output_MK, value, 0.0, 1.0, loss(output_MK, target, "classification"), {}, speed, "", 1.0, 4)


def test_heads_that_see_different_things_are_combined():
    target, outputs = heads(3, own=0.8)
    candidates = [probed(name, output, target, 10.0) for name, output in zip("abc", outputs, strict=True)]
    found = combine(candidates, held(target))
    assert found is not None
    assert len(found.names) >= 2
    assert found.gain.low > 0
    assert found.value == pytest.approx(found.alone + found.gain.difference)
    assert found.seconds == pytest.approx(0.1 * len(found.names))


def test_heads_that_see_the_same_are_not_combined():
    target, outputs = heads(3, own=0.0)
    candidates = [probed(name, output, target) for name, output in zip("abc", outputs, strict=True)]
    assert combine(candidates, held(target)) is None


def test_a_head_of_noise_is_not_added():
    target, outputs = heads(1, own=1.0)
    rng = np.random.default_rng(1)
    noise = rng.dirichlet([5, 5], len(target))
    assert forward({"good": outputs[0], "noise": noise}, held(target), np.arange(len(target))) == ["good"]


def test_a_few_units_are_too_few_to_combine():
    target, outputs = heads(2, own=0.8)
    candidates = [probed(name, output, target) for name, output in zip("ab", outputs, strict=True)]
    assert combine(candidates, held(target)) is not None
    assert combine(candidates, held(target, np.arange(len(target)) % 10)) is None


def test_images_of_a_unit_do_not_tell_more_than_the_unit():
    gain_M = np.repeat(np.random.default_rng(0).normal(0.3, 1, 20), 50)
    assert unit_p(gain_M, np.arange(1000)) < 1e-4
    assert unit_p(gain_M, np.repeat(np.arange(20), 50)) > 0.01
    assert unit_p(np.zeros(10), np.arange(10)) == 1.0


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_the_mean_of_the_losses_of_the_images_is_the_loss_of_the_task(task):
    rng = np.random.default_rng(0)
    target = {
        "classification": rng.integers(0, 3, 50),
        "multilabel": (rng.random((50, 3)) < 0.5).astype(float),
        "regression": rng.normal(size=50),
    }[task]
    output = rng.dirichlet([1, 1, 1], 50) if task != "regression" else rng.normal(size=(50, 1))
    assert image_losses(output, target, task).mean() == pytest.approx(loss(output, target, task))


def test_the_doubt_that_a_mean_adds_does_not_count_against_it():
    """The mean of two heads has the higher log loss, because it is less sure, but it is right more often."""
    target, outputs = heads(2, own=0.9, seed=3)
    sure = [output**3 / (output**3).sum(axis=1, keepdims=True) for output in outputs]
    right = [probed(name, output, target).value for name, output in zip("ab", sure, strict=True)]
    mean = np.mean(sure, axis=0)
    assert probed("mean", mean, target).value > max(right)
    scaled = [scaled_losses(output, target, "classification").mean() for output in (*sure, mean)]
    assert scaled[2] < min(scaled[:2])
    assert scaled[0] < image_losses(sure[0], target, "classification").mean()
    assert len(forward(dict(zip("ab", sure, strict=True)), held(target), np.arange(len(target)))) == 2


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_are_scaled_too(task):
    rng = np.random.default_rng(0)
    target = (rng.random((80, 3)) < 0.5).astype(float) if task == "multilabel" else rng.normal(size=80)
    output = np.clip(rng.random((80, 3)), 0.01, 0.99) if task == "multilabel" else rng.normal(size=(80, 1))
    found = scaled_losses(output, target, task)
    assert found.shape == (80,)
    assert found.mean() <= loss(output, target, task) + 1e-9


def test_choosing_among_equal_heads_does_not_flatter():
    """The gain of a choice is measured on images that had no part in it: of heads that see the same but for noise in
    their probabilities, none gains by being chosen."""
    gains = []
    for seed in range(12):
        target, outputs = heads(6, own=0.02, seed=seed, images=300)
        candidates = [probed(name, output, target) for name, output in zip("abcdef", outputs, strict=True)]
        found = combine(candidates, held(target))
        gains.append(found.gain.difference if found else 0.0)
    assert abs(np.mean(gains)) < 0.01
