"""What the gate judges: both models on the same test images, and one line of its table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graft.tasks.common.data.task import Metric, Task, metric_named
from graft.tasks.common.heads.calibration import OF_DECISIONS
from graft.tasks.common.scoring.main_metric import metric_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BY_CLASS: tuple[Task, ...] = ("classification", "multilabel")
"""The tasks whose outputs have a column for each class."""

Outcome = Literal["passed", "failed", "too few images", "noted", "not checked", "cannot be compared"]


@dataclass(frozen=True)
class Check:
    """One question of the gate.

    Attributes:
        name: of the check, as the guide has it.
        outcome: `passed`, `failed`, `too few images` (to tell), `noted` (a finding that does not refuse), `not checked`
            or `cannot be compared`.
        found: the finding, with its numbers.
        allowed: what would have passed.
        names: all classes that `found` tells of, by what it says about them; it has only the first ones.
    """

    name: str
    outcome: Outcome
    found: str
    allowed: str = ""
    names: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Contest:
    """Both models on the N current test images that neither was trained on; K classes.

    Attributes:
        metric: a key of `METRICS`, or `auto`.
        classes: the current classes, which the columns follow; empty without columns by class.
        champion_classes: the classes that the champion knows; empty without columns by class.
        target: as `FeatureSet.targets` gives it.
        challenger, champion: calibrated outputs (N, K), or (N, 1).
        unit_N: the independent unit of each image, see `tasks/common/data/units.py`.
        earlier_N: which of the images existed when the champion was made: those of its own test and validation splits.
        left_out: number of test images that are not among these because the champion was trained on them.
        latency: milliseconds for a single image, of the challenger and of the champion.
        looks: how many models have been judged on these test images before.
        challenger_weighed, champion_weighed: their outputs as their decisions weigh them, see `Calibration.weighed`;
            for anomaly 1 where the score is above their threshold, else 0. None: as they are.
    """

    task: Task
    metric: str
    classes: list[str]
    champion_classes: list[str]
    target: npt.NDArray[Any]
    challenger: Floats
    champion: Floats
    unit_N: Ints
    earlier_N: Bools
    left_out: int
    latency: tuple[float, float]
    looks: int = 0
    challenger_weighed: Floats | None = None
    champion_weighed: Floats | None = None

    @property
    def named(self) -> Metric:
        return metric_named(self.metric, self.task)

    def of(self, rows: Bools) -> Contest:
        """The same on some of the images."""
        return replace(
            self,
            target=self.target[rows],
            challenger=self.challenger[rows],
            champion=self.champion[rows],
            unit_N=self.unit_N[rows],
            earlier_N=self.earlier_N[rows],
            challenger_weighed=None if self.challenger_weighed is None else self.challenger_weighed[rows],
            champion_weighed=None if self.champion_weighed is None else self.champion_weighed[rows],
        )

    def decided(self) -> tuple[Floats, Floats]:
        """The outputs of challenger and champion by which they decide."""
        own = self.challenger if self.challenger_weighed is None else self.challenger_weighed
        return own, self.champion if self.champion_weighed is None else self.champion_weighed

    def judged(self, metric: str) -> tuple[Floats, Floats]:
        """The outputs of challenger and champion that a metric must be given, see `Calibration.judged`."""
        return self.decided() if metric in OF_DECISIONS else (self.challenger, self.champion)

    @property
    def ranks(self) -> bool:
        """Whether the metric can be computed: for anomaly, there are both good images and defects."""
        return self.task != "anomaly" or len(np.unique(self.target)) > 1

    def scores(self) -> tuple[float, float]:
        """The metric of the challenger and of the champion; nan if it cannot be computed."""
        own, theirs = (
            metric_of(output, self.target, self.named.key, self.task) for output in self.judged(self.named.key)
        )
        return own, theirs

    def size(self) -> str:
        """The number of images in words, and of the groups that they form."""
        images, units = len(self.target), len(np.unique(self.unit_N))
        return f"{images:,} images" + (f" in {units:,} groups" if units < images else "")
