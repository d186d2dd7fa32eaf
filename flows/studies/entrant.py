"""A candidate of `graft rank`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graft.tasks.common.backbones.spec import Spec
from graft.tasks.features.params import FeaturesParams

from .shared_decode import Job


@dataclass(frozen=True)
class Entrant:
    """A candidate that can be computed: its parameters (the project's except for backbone and weights), and its job.

    Attributes:
        fingerprint: of its features.
    """

    params: FeaturesParams
    job: Job
    fingerprint: dict[str, Any]

    @property
    def spec(self) -> Spec:
        return self.job.extractor.spec

    @property
    def network(self) -> dict[str, Any]:
        """The fingerprint without what does not change the features: the tag in the name, and the weights' origin."""
        left_out = {"backbone", "weights", "digest"}
        facts = {key: value for key, value in self.fingerprint.items() if key not in left_out}
        return {**facts, "network": self.spec.backbone.split(".")[0]}
