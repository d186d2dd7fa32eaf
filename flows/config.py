"""params.yaml as a whole: every stage's section, and those of the flows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from tasks.audit.params import AuditParams
from tasks.common.errors import ParamsError, nearest
from tasks.common.params import Section, parse_section, read_params
from tasks.common.task import Task
from tasks.evaluate.params import EvaluateParams
from tasks.features.params import FeaturesParams
from tasks.finetune.params import FinetuneParams
from tasks.head.params import HeadParams
from tasks.preprocess.params import PreprocessParams
from tasks.register.params import RegisterParams


class RetrainParams(Section):
    """How stages run under `graft run` and `graft serve`; no stage's result depends on it."""

    time_limit_minutes: float = Field(120.0, gt=0)
    """After this time a stage's processes are killed and the run fails."""

    retries: int = Field(2, ge=0)
    """How often a stage is tried again after a failure of input or output; no other failure is tried again."""

    retry_seconds: float = Field(30.0, ge=0)
    """The wait before each further try."""


class DriftParams(Section):
    """How `graft drift` compares today's images with those that a model was trained on."""

    significance: float = Field(0.01, gt=0, lt=0.5)
    """How often images that are like the others may be called drift."""

    least_effect: float = Field(0.0, ge=0)
    """A smaller shift of the whole is no drift, however certain: the distance between the two means, in units of the
    spread within; the guide says what is how large."""

    far_quantile: float = Field(0.95, ge=0.5, lt=1)
    """An image is far if it is farther from its nearest training image than this share of these are from theirs."""

    sample: int = Field(1000, ge=20, le=4000)
    """How many of today's images are compared at most; chosen at random."""

    permutations: int = Field(1000, ge=100, le=10_000)
    """Of both tests; at least 2 / significance, or they could not say drift."""

    seed: int = 0
    """Of the sample and of the permutations."""

    @model_validator(mode="after")
    def _can_say_drift(self) -> Self:
        if self.permutations + 1 < 2 / self.significance:
            raise ValueError(
                f"permutations must be at least 2 / significance, got {self.permutations} and {self.significance:g}"
            )
        return self


class Params(Section):
    """Graft's params.yaml."""

    preprocess: PreprocessParams = PreprocessParams()
    features: FeaturesParams = FeaturesParams()
    head: HeadParams = HeadParams()
    audit: AuditParams = AuditParams()
    finetune: FinetuneParams = FinetuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    register_: RegisterParams = Field(RegisterParams(), alias="register")
    retrain: RetrainParams = RetrainParams()
    drift: DriftParams = DriftParams()


SECTIONS: dict[str, type[Section]] = {
    field.alias or name: field.annotation  # type: ignore[misc]
    for name, field in Params.model_fields.items()
}
"""Section -> its model, in the order of the file."""


def load_params(path: Path) -> dict[str, Section]:
    """Every section, checked.

    Raises:
        ParamsError: an unknown section or key, or a value out of range.
    """
    content = read_params(path)
    for name in content:
        if name not in SECTIONS:
            raise ParamsError(
                f"{path.name}: unknown section `{name}`",
                got=name,
                allowed=", ".join(SECTIONS),
                todo=nearest(str(name), SECTIONS) or "remove the section",
            )
    return {name: parse_section(model, content.get(name), name, path.name) for name, model in SECTIONS.items()}


def task_of(sections: dict[str, Section]) -> Task:
    """What the labels are: the one parameter by which a stage (preprocess) goes that is another's."""
    head = sections["head"]
    assert isinstance(head, HeadParams)
    return head.task


def json_schema() -> dict[str, Any]:
    """For editors: completion, descriptions and checks in params.yaml."""
    schema = Params.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Graft's params.yaml"}
