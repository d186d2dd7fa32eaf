"""What models that have not seen the images say about their labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from .curve import Curve


@dataclass(frozen=True)
class Judgement:
    """Attributes:
    l2: the strength of the models of the audit; None where they have none.
    out_of_fold: their main metric on training and validation images held out from training, and both ends of its
        interval over the units; None without any.
    unjudged: training and validation images that could not be held out.
    by_chance: how many of as many correct labels (or marks) would be suspected, see `label_issues.by_chance`.
    label_issues: one row per image with a suspected label.
    doubted, judged: how many labels (with several classes per image, marks) are suspected, and could be judged.
    confusable: pairs of classes, see the module of this name.
    curve: the learning curve.
    scores: for anomaly, every held-out good image with its score, the most anomalous first.
    """

    l2: float | None
    out_of_fold: tuple[float, float, float] | None
    unjudged: int
    by_chance: float
    label_issues: pd.DataFrame
    doubted: int
    judged: int
    confusable: pd.DataFrame
    curve: Curve
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
