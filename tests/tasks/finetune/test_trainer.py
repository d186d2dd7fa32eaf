from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.common.scoring.classification import accuracy
from graft.tasks.finetune.auto_rules import plan
from graft.tasks.finetune.batches import Images
from graft.tasks.finetune.checkpoint import Course
from graft.tasks.finetune.clock import Clock
from graft.tasks.finetune.inputs import normalised
from graft.tasks.finetune.loss import Goal
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.finetune.scaling import scaled_loss
from graft.tasks.finetune.schedule import Schedule
from graft.tasks.finetune.trainer import Trainer

TRANSFORM = EvalTransform(8, 8, 1.0, "center", "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
N = 24


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def trainer():
    """A trainer of a network of one filter bank, always from the same weights."""

    def make(**params):
        torch.manual_seed(0)
        settings = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "patience": 9, "precision": "f32"}
        chosen = FinetuneParams(**{**settings, "ema": 0, **params})
        return build(Network(), chosen)

    return make


def build(body, params, last=None):
    last = last or (np.zeros((2, 6), np.float32), np.zeros(2, np.float32))
    goal = Goal("classification", params.label_smoothing)
    return Trainer(body, last, normalised(TRANSFORM), torch.zeros(2, 3, 8, 8), params, plan(params, N), goal)


def images(load=None):
    """Dark and light images in turn."""
    y_N = np.arange(N) % 2
    pixels = (60 + 80 * y_N[:, None, None, None] + np.random.default_rng(0).integers(0, 60, (N, 8, 8, 3))).astype(
        np.uint8
    )
    return Images(load or (lambda i, epoch: pixels[i]), y_N, np.ones(N))


def state(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def statistics(trainer):
    return {name: value for name, value in state(trainer).items() if "running" in name or "batches" in name}


def test_training_learns(trainer, tmp_path):
    course = trainer(epochs=8).run(images(), images(), tmp_path / "c.pt", None)
    assert course.rows[-1]["inner_accuracy"] == 1.0
    assert course.rows[-1]["train_loss"] < course.rows[0]["train_loss"]


def test_training_starts_from_the_head_it_is_given():
    head = LinearHead(np.ones((2, 6), np.float32), np.float32([7, 8]), ["a", "b"])
    trainer = build(Network(), FinetuneParams(), (head.weight, head.bias))
    again = trainer.head(["a", "b"])
    assert np.array_equal(again.weight, head.weight)
    assert np.array_equal(again.bias, head.bias)


def test_all_layers_are_trained(trainer, tmp_path):
    t = trainer()
    before = state(t)
    t.run(images(), images(), tmp_path / "c.pt", None)
    assert not any(torch.equal(before[name], value) for name, value in t.network.named_parameters())


def test_frozen_batch_norm_keeps_its_statistics_to_the_bit(trainer, tmp_path):
    t = trainer(batch_norm="frozen")
    before = statistics(t)
    t.run(images(), images(), tmp_path / "c.pt", None)
    assert same(statistics(t), before)


def test_running_batch_norm_updates_its_statistics(trainer, tmp_path):
    t = trainer(batch_norm="running")
    before = statistics(t)
    t.run(images(), images(), tmp_path / "c.pt", None)
    assert not same(statistics(t), before)


@pytest.mark.parametrize("batch_norm", ["frozen", "running"])
@pytest.mark.parametrize("batch_size", [4, 24, 64])
def test_measuring_the_speed_leaves_all_weights_unchanged(trainer, batch_norm, batch_size):
    t = trainer(batch_norm=batch_norm, batch_size=batch_size)
    before = state(t)
    search, epoch = t.seconds(images(), images())
    assert search == 0 < epoch
    assert same(state(t), before)


def test_measuring_the_speed_leaves_the_course_unchanged(trainer, tmp_path):
    measured, plain = (trainer(ema="auto", batch_norm="running", warmup=0) for _ in range(2))
    measured.seconds(images(), images())
    rows = [t.run(images(), images(), tmp_path / f"{n}.pt", None).rows for n, t in enumerate((measured, plain))]
    assert rows[0] == rows[1]


def test_the_same_training_gives_the_same_weights(trainer, tmp_path):
    states = []
    for n in range(2):
        t = trainer()
        t.run(images(), images(), tmp_path / f"{n}.pt", None)
        states.append(state(t))
    assert same(*states)


def interrupt_in(epoch):
    def load(i, now):
        if now == epoch:
            raise KeyboardInterrupt
        return images().load(i, now)

    return load


@pytest.mark.parametrize("batch_norm", ["frozen", "running"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_training_goes_on_as_if_undisturbed(trainer, tmp_path, epoch, batch_norm):
    whole = trainer(batch_norm=batch_norm)
    expected = whole.run(images(), images(), tmp_path / "whole.pt", None)
    with pytest.raises(KeyboardInterrupt):
        trainer(batch_norm=batch_norm).run(images(interrupt_in(epoch)), images(), tmp_path / "c.pt", None)
    resumed = trainer(batch_norm=batch_norm)
    course = resumed.run(images(), images(), tmp_path / "c.pt", None)
    assert course.rows == expected.rows
    assert course.best_epoch == expected.best_epoch
    assert same(state(resumed), state(whole))


def test_a_training_that_was_done_is_not_gone_on_with(trainer, tmp_path):
    first = trainer()
    expected = first.run(images(), images(), tmp_path / "c.pt", None)
    again = trainer()
    assert again.run(images(), images(), tmp_path / "c.pt", None).rows == expected.rows
    assert same(state(again), state(first))


def test_a_training_that_had_stopped_early_is_not_gone_on_with(trainer, tmp_path):
    """Killed after its last epoch, before its outputs were written: the checkpoint is all there is."""
    still = {"learning_rate": 1e-12, "patience": 1, "epochs": 9}
    expected = trainer(**still).run(images(), images(), tmp_path / "c.pt", None)
    again = trainer(**still).run(images(), images(), tmp_path / "c.pt", None)
    assert again.rows == expected.rows
    assert again.ended == expected.ended


@pytest.mark.parametrize("patience", [1, 3])
def test_training_ends_when_validation_has_not_improved_for_its_patience(trainer, tmp_path, patience):
    t = trainer(learning_rate=1e-12, patience=patience, epochs=20)
    course = t.run(images(), images(), tmp_path / "c.pt", None)
    assert len(course.rows) == 1 + patience
    assert course.ended == f"held-out images have not improved for {patience} epochs"


def test_the_best_weights_are_restored_and_not_the_last(trainer, tmp_path):
    t = trainer(learning_rate=3.0, warmup=0, epochs=6)
    val = images()
    course = t.run(images(), val, tmp_path / "c.pt", None)
    losses = [row["inner_loss"] for row in course.rows]
    assert course.best_epoch == int(np.argmin(losses)) < len(losses) - 1
    assert scaled_loss(t.output(val), val.target, val.weight_N, "classification") == pytest.approx(min(losses))
    assert same(state(t), course.best_state)


def test_training_ends_before_it_would_pass_its_deadline(trainer, tmp_path):
    course = trainer().run(images(), images(), tmp_path / "c.pt", 0.0)
    assert len(course.rows) == 1
    assert course.ended == "another epoch would pass the time budget"


def test_training_within_its_deadline_does_all_epochs(trainer, tmp_path):
    course = trainer().run(images(), images(), tmp_path / "c.pt", 1e6)
    assert len(course.rows) == 4
    assert course.ended == "all epochs done"


def test_the_course_tells_loss_and_accuracy_on_validation(trainer, tmp_path):
    t, val = trainer(epochs=1), images()
    (row,) = t.run(images(), val, tmp_path / "c.pt", None).rows
    p_NK = t.output(val)
    assert row["inner_loss"] == pytest.approx(scaled_loss(p_NK, val.target, val.weight_N, "classification"))
    assert row["inner_accuracy"] == accuracy(p_NK, val.target)


def test_probabilities_do_not_depend_on_the_size_of_the_batch(trainer):
    one, many = (trainer(batch_size=size).output(images()) for size in (2, 24))
    assert np.allclose(one, many, atol=1e-6)
    assert one.shape == (N, 2)


def test_each_epoch_sees_every_image_once_and_validation_the_images_as_they_are(trainer, tmp_path):
    seen = []

    def load(i, epoch):
        seen.append((epoch, i))
        return images().load(i, epoch)

    trainer(epochs=2).run(images(load), images(), tmp_path / "c.pt", None)
    assert sorted(seen) == [(epoch, i) for epoch in range(2) for i in range(N)]


def test_fewer_images_than_a_batch_are_still_trained_on(trainer, tmp_path):
    course = trainer(batch_size=64).run(images(), images(), tmp_path / "c.pt", None)
    assert np.isfinite(course.rows[-1]["train_loss"])


def test_an_error_while_loading_is_raised(trainer, tmp_path):
    def load(i, epoch):
        raise LookupError

    with pytest.raises(LookupError):
        trainer().run(images(load), images(), tmp_path / "c.pt", None)


def test_biases_and_norms_do_not_decay(trainer):
    groups = trainer(weight_decay=0.5)._optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    assert all((p.ndim > 1) == (group["weight_decay"] > 0) for group in groups for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == 6


def test_an_image_of_no_weight_to_speak_of_has_no_effect(trainer, tmp_path):
    plain = images()
    wrong = Images(
        plain.load, np.where(np.arange(N) < 6, 1 - plain.target, plain.target), np.where(np.arange(N) < 6, 1e-9, 1.0)
    )
    t = trainer(epochs=8)
    t.run(wrong, plain, tmp_path / "c.pt", None)
    assert accuracy(t.output(plain), plain.target) == 1.0


def test_a_new_course_is_empty():
    empty = Course(rows=[], best_epoch=-1, best_state={}, seconds=0.0, ended="", step=0, parts=1, schedule=Schedule(1))
    assert Course() == empty


@pytest.mark.parametrize("ema", [0, "auto"])
@pytest.mark.parametrize("step", [0, 2])
def test_a_training_killed_within_an_epoch_goes_on_from_its_last_step(trainer, tmp_path, monkeypatch, ema, step):
    """Each step is followed by a checkpoint, and the process ends with the one after `step`."""
    settings = {"ema": ema, "mixup": 0.4, "checkpoint_every": 1e-9}
    whole = trainer(**settings)
    expected = whole.run(images(), images(), tmp_path / "whole.pt", None)
    doomed = trainer(**settings)
    save, saved = doomed._save, []

    def then_die(path, course):
        save(path, course)
        saved.append((len(course.rows), course.step))
        if saved[-1] == (1, step):
            raise KeyboardInterrupt

    monkeypatch.setattr(doomed, "_save", then_die)
    with pytest.raises(KeyboardInterrupt):
        doomed.run(images(), images(), tmp_path / "c.pt", None)
    resumed = trainer(**settings)
    course = resumed.run(images(), images(), tmp_path / "c.pt", None)
    assert saved[:3] == [(0, 1), (0, 2), (1, 0)]
    for row, wanted in zip(course.rows, expected.rows, strict=True):
        assert row == pytest.approx(wanted, rel=1e-6)  # the loss is added up in another order
    assert same(state(resumed), state(whole))


def test_a_step_in_parts_is_the_step_as_a_whole(trainer, tmp_path):
    whole, parts = trainer(mixup=0.4), trainer(mixup=0.4, accumulate=3)
    rows = [t.run(images(), images(), tmp_path / f"{n}.pt", None).rows for n, t in enumerate((whole, parts))]
    for a, b in zip(*rows, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


class Greedy(Network):
    """Runs out of memory for more than two images in training."""

    def forward(self, x):
        if self.training and len(x) > 2:
            raise torch.OutOfMemoryError("tried to allocate more than there is")
        return super().forward(x)


def test_out_of_memory_divides_the_step_and_says_so(trainer, tmp_path, capfd):
    torch.manual_seed(0)
    settings = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "precision": "f32", "ema": 0}
    course = build(Greedy(), FinetuneParams(**settings)).run(images(), images(), tmp_path / "a.pt", None)
    expected = trainer(**settings).run(images(), images(), tmp_path / "b.pt", None)
    assert course.parts == 4
    assert course.rows[-1] == pytest.approx(expected.rows[-1], rel=1e-4)
    assert "out of memory; from here on each step's 8 images are divided into 4 parts" in capfd.readouterr().err


def test_memory_that_is_too_small_for_one_image_is_an_error(tmp_path):
    class Hopeless(Network):
        def forward(self, x):
            if self.training:
                raise MemoryError
            return super().forward(x)

    with pytest.raises(GraftError, match=r"fine-tuning ran out of memory(.|\n)*finetune.batch_size"):
        build(Hopeless(), FinetuneParams(batch_size=4)).run(images(), images(), tmp_path / "c.pt", None)


def test_an_error_that_is_not_of_memory_is_raised(tmp_path):
    class Broken(Network):
        def forward(self, x):
            if self.training:
                raise RuntimeError("something else")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="something else"):
        build(Broken(), FinetuneParams()).run(images(), images(), tmp_path / "c.pt", None)


def test_averaged_weights_are_validated_and_kept(trainer, tmp_path):
    t = trainer(ema=0.9, epochs=2)
    live = []
    epoch = t._epoch

    def noted(*args):
        epoch(*args)
        live.append(state(t))

    t._epoch = noted
    course = t.run(images(), images(), tmp_path / "c.pt", None)
    assert not any(same(state(t), one) for one in live)
    shown = scaled_loss(t.output(images()), images().target, np.ones(N), "classification")
    assert course.rows[course.best_epoch]["inner_loss"] == pytest.approx(shown)


def test_a_long_gradient_is_cut(trainer, tmp_path):
    lengths = []
    for clip in (0.0, 1e-3):
        t = trainer(clip_norm=clip, epochs=1, optimizer="sgd", learning_rate=1.0, warmup=0, weight_decay=0)
        before = state(t)
        t.run(images(), images(), tmp_path / f"{clip}.pt", None)
        lengths.append(
            sum(float((value.detach() - before[name]).norm()) for name, value in t.network.named_parameters())
        )
    assert lengths[1] < 0.05 * lengths[0]


def test_gradual_unfreezing_begins_with_the_last_layer(trainer, tmp_path):
    t = trainer(unfreeze="gradual", epochs=8)
    before, first = state(t), []

    def load(i, epoch):
        if epoch == 1 and not first:
            first.append(state(t))
        return images().load(i, epoch)

    t.run(images(load), images(), tmp_path / "c.pt", None)
    moved = {name for name, value in first[0].items() if not torch.equal(value, before[name])}
    assert "1.weight" in moved
    assert "0.0.weight" not in moved
    assert not torch.equal(t.network.state_dict()["0.0.weight"], before["0.0.weight"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_both_optimizers_learn(trainer, tmp_path, optimizer):
    course = trainer(optimizer=optimizer, learning_rate="auto", epochs=12).run(
        images(), images(), tmp_path / "c.pt", None
    )
    assert course.rows[-1]["inner_accuracy"] > 0.9


NOTHING = Images(lambda i, epoch: None, np.empty(0, np.int64), np.empty(0))


def test_without_held_out_images_the_last_epoch_is_kept(trainer, tmp_path):
    t = trainer(epochs=2)
    course = t.run(images(), NOTHING, tmp_path / "c.pt", None)
    assert (course.best_epoch, list(course.rows[0])) == (1, ["epoch", "train_loss"])
    assert same(state(t), course.best_state)


def test_a_training_that_is_told_to_stop_is_the_beginning_of_the_whole_one(trainer, tmp_path):
    whole = trainer(epochs=4).run(images(), images(), tmp_path / "whole.pt", None)
    t = trainer(epochs=4)
    t.plan = replace(t.plan, stop=2)
    assert t.run(images(), images(), tmp_path / "c.pt", None).rows == whole.rows[:2]


def test_of_several_rates_the_one_with_the_lowest_held_out_loss_is_taken(trainer, tmp_path):
    t = trainer(epochs=8)
    before = state(t)
    t.plan = replace(t.plan, tried_rates=(1e-9, 1e-2))
    seen = []
    epoch = t._epoch
    t._epoch = lambda *args: (seen.append(state(t)), epoch(*args))
    course = t.run(images(), images(), tmp_path / "c.pt", None)
    assert [trial["rate"] for trial in course.trials] == [1e-9, 1e-2]
    assert course.trials[1]["loss"] < course.trials[0]["loss"]
    assert course.rate == 1e-2
    assert same(seen[0], before), "what a short training has learned is forgotten"


def test_the_rate_is_not_chosen_again_after_an_interruption(trainer, tmp_path, monkeypatch):
    def made(**changes):
        t = trainer(epochs=3, **changes)
        t.plan = replace(t.plan, tried_rates=(1e-3, 1e-2))
        return t

    expected = made().run(images(), images(), tmp_path / "whole.pt", None)
    with pytest.raises(KeyboardInterrupt):
        made().run(images(interrupt_in(2)), images(), tmp_path / "c.pt", None)
    resumed = made()
    monkeypatch.setattr(resumed, "_trial", None)
    course = resumed.run(images(), images(), tmp_path / "c.pt", None)
    assert (course.rate, course.trials) == (expected.rate, expected.trials)
    assert course.rows == expected.rows


class Second(Clock):
    """Every epoch takes a second."""

    def total(self):
        return self._before + 1.0


def test_epochs_that_are_too_slow_shorten_the_schedule_and_the_rate_still_falls_to_zero(trainer, tmp_path, monkeypatch):
    t, rates = trainer(epochs=40, warmup=0), []
    step = t._step

    def noted(*args):
        value = step(*args)
        rates.append(t._optimizer.param_groups[0]["lr"])
        return value

    t._step = noted
    monkeypatch.setattr("graft.tasks.finetune.trainer.Clock", Second)
    course = t.run(images(), images(), tmp_path / "c.pt", 6.5)
    assert len(course.rows) == 5, "a second is for the choice of the rate"
    assert course.ended == "another epoch would pass the time budget"
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-8)


def test_an_image_counts_as_much_as_its_weight_says(trainer):
    """Of 24 images one has the weight 100: the steps' gradients add up to that of the weighted mean loss."""
    weight_N = np.ones(N)
    weight_N[5] = 100.0
    plain = images()
    weighed = Images(plain.load, plain.target, weight_N)
    t = trainer(batch_norm="frozen")
    t._train_mode()

    def gradient(parts):
        total = 0
        for rows in parts:
            batch = np.stack([plain.load(int(row), 0) for row in rows])
            t._gradient(rows, batch, weighed, 1, 0, 0)
            total = total + t.network[1].weight.grad.clone()
        return total

    in_steps = gradient(np.arange(N).reshape(3, 8)) / 3
    x = torch.from_numpy(np.stack([plain.load(i, 0) for i in range(N)]))
    t._optimizer.zero_grad()
    loss_N = t.goal.loss(t.network(normalised(TRANSFORM)(x.numpy(), t.device)), torch.from_numpy(plain.target))
    (loss_N * torch.from_numpy(weight_N / weight_N.sum())).sum().backward()
    assert torch.allclose(in_steps, t.network[1].weight.grad, rtol=1e-4, atol=1e-6)
