"""What is said of an epoch."""

from __future__ import annotations

from ..common.data.task import metric_named
from ..common.scoring.main_metric import metric_of
from .batches import Images
from .checkpoint import Course
from .loss import Goal
from .scaling import Floats, scaled_loss


def judged(output: Floats, inner: Images, goal: Goal) -> dict[str, float]:
    """The scaled loss, in the unit of the training loss, and the metric on the inner split; by their names in
    curves.csv."""
    metric = metric_named(goal.metric, goal.task).key
    return {
        "inner_loss": scaled_loss(output, inner.target, inner.weight_N, goal.task) / goal.unit,
        f"inner_{metric}": metric_of(output, inner.target, metric, goal.task),
    }


def told(course: Course, goal: Goal) -> str:
    """The last epoch in words."""
    row, metric = course.rows[-1], metric_named(goal.metric, goal.task)
    findings = f"training loss {row['train_loss']:.4f}"
    if "inner_loss" in row:
        shown = metric.text(row[f"inner_{metric.key}"])
        findings = f"held-out loss {row['inner_loss']:.4f} after scaling, {metric.title} {shown}"
    return f"epoch {len(course.rows)} of {course.schedule.epochs}: {findings}, {course.last_lap():.0f} s"


def told_of_trials(course: Course) -> str:
    """The rates that were tried, in words."""
    losses = ", ".join(f"{trial['rate']:.1e}: {trial['loss']:.4f}" for trial in course.trials)
    return f"learning rate {course.rate:.1e}, by the held-out loss after short trainings ({losses})"
