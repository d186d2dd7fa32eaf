"""params.yaml as a whole: every stage's section, and the one that says how a retraining runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

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
