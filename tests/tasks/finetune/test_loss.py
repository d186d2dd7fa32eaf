import numpy as np
import pytest
import torch
from torch import nn

from graft.tasks.common.heads.base import sigmoid
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.common.scoring.main_metric import main_metric
from graft.tasks.common.scoring.multilabel import several_log_loss
from graft.tasks.finetune.auto_rules import plan
from graft.tasks.finetune.batches import Images
from graft.tasks.finetune.inputs import normalised
from graft.tasks.finetune.loss import Goal
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.finetune.trainer import Trainer

LOGITS = torch.tensor([[2.0, -1.0], [0.5, 0.0], [-3.0, 1.0]])
TRANSFORM = EvalTransform(8, 8, 1.0, "center", "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
N = 24


def test_one_class_is_learned_by_cross_entropy():
    target = torch.tensor([0, 1, 1])
    expected = nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")(LOGITS, target)
    assert torch.equal(Goal("classification", 0.1).loss(LOGITS, target), expected)


def test_several_classes_are_learned_by_the_cross_entropy_of_each():
    target = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    losses = Goal("multilabel", 0.0).loss(LOGITS, torch.from_numpy(target))
    assert losses.mean().item() == pytest.approx(several_log_loss(sigmoid(LOGITS.numpy()), target), rel=1e-6)


def test_smoothing_spreads_each_yes_and_no_over_both():
    losses = Goal("multilabel", 0.2).loss(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.float64))
    at_best = Goal("multilabel", 0.2).loss(torch.logit(torch.full((1, 1), 0.9)), torch.ones(1, 1, dtype=torch.float64))
    sharper = Goal("multilabel", 0.2).loss(torch.logit(torch.full((1, 1), 0.99)), torch.ones(1, 1, dtype=torch.float64))
    assert at_best < losses
    assert at_best < sharper


def test_a_number_is_learned_by_its_squared_error_in_units_of_the_training_images():
    goal = Goal.of("regression", np.array([10.0, 30.0]), 0.1)
    losses = goal.loss(torch.tensor([[0.0], [1.0]]), torch.tensor([10.0, 30.0], dtype=torch.float64))
    assert (goal.mean, goal.std, goal.unit) == (20.0, 10.0, 100.0)
    assert losses.tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_probabilities_are_those_of_a_head_of_the_same_logits(task):
    head = LinearHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), ["a", "b"], task)
    assert Goal(task, 0.1).output(LOGITS).numpy() == pytest.approx(head.output(LOGITS.numpy()), rel=1e-5)


def test_what_is_nearly_sure_is_not_wholly_sure():
    p_BK = Goal("multilabel", 0.0).output(torch.tensor([[30.0, -30.0]])).numpy()
    assert 0 < 1 - p_BK[0, 0] < 1e-12
    assert 0 < p_BK[0, 1] < 1e-12


def test_a_head_of_a_number_survives_the_change_of_unit():
    goal = Goal.of("regression", np.array([1000.0, 3000.0, 2000.0]), 0.0)
    head = LinearHead(np.float32([[100, -20, 5]]), np.float32([1234]), [], "regression")
    weight, bias = goal.start(head)
    again = goal.head(weight, bias, [])
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    units = torch.from_numpy(x @ weight.T + bias)
    assert np.abs(units).max() < 5
    assert again.task == "regression"
    assert again.output(x) == pytest.approx(head.output(x), rel=1e-5)
    assert goal.output(units).numpy() == pytest.approx(head.output(x), rel=1e-5)


def test_numbers_that_are_all_the_same_have_a_unit():
    assert Goal.of("regression", np.array([7.0, 7.0]), 0.0).std == 1.0


def bright(scale):
    """Pictures whose brightness is the number, and how many there are of each."""
    level = np.linspace(0.2, 0.8, N)
    shift = np.random.default_rng(0).normal(0, 8, (N, 8, 8, 3))
    pixels = (255 * level[:, None, None, None] + shift).clip(0, 255).astype(np.uint8)
    return pixels, scale * level


def trained(task, pixels, target, k, tmp_path, **params):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classes = [f"class{n}" for n in range(k)] if task == "multilabel" else []
    head = LinearHead(np.zeros((k, 6), np.float32), np.zeros(k, np.float32), classes, task)
    settings = {"epochs": 30, "batch_size": 8, "learning_rate": 2e-2, "patience": 30, "precision": "f32", **params}
    images = Images(lambda i, epoch: pixels[i], target, np.ones(N))
    goal, chosen, example = Goal.of(task, target, 0.0), FinetuneParams(**settings), torch.zeros(2, 3, 8, 8)
    planned = plan(chosen, N)
    trainer = Trainer(backbone, goal.start(head), normalised(TRANSFORM), example, chosen, planned, goal)
    return trainer, images, trainer.run(images, images, tmp_path / "c.pt", None)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_training_learns_numbers_of_any_size(tmp_path, scale):
    pixels, target = bright(scale)
    trainer, images, course = trained("regression", pixels, target, 1, tmp_path)
    row = course.rows[course.best_epoch]
    assert row["inner_r2"] > 0.8
    assert row["inner_loss"] == pytest.approx(1 - row["inner_r2"], rel=1e-4)
    assert main_metric(trainer.output(images), target, "regression") == pytest.approx(row["inner_r2"])


def test_training_learns_several_classes(tmp_path):
    rng = np.random.default_rng(1)
    target = rng.integers(0, 2, (N, 3)).astype(np.float64)
    pixels = (60 + 120 * target[:, None, None, :] + rng.integers(0, 40, (N, 8, 8, 3))).astype(np.uint8)
    trainer, images, course = trained("multilabel", pixels, target, 3, tmp_path)
    assert course.rows[course.best_epoch]["inner_mean_average_precision"] > 0.9
    assert course.rows[-1]["train_loss"] < course.rows[0]["train_loss"]
    assert trainer.output(images).shape == (N, 3)
    assert trainer.head(["a", "b", "c"]).task == "multilabel"
