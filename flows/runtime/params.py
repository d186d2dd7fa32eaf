"""params.yaml as a whole: the sections of all stages and flows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from graft.tasks.audit.params import AuditParams
from graft.tasks.common.core.errors import ParamsError, nearest
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.sections import Section, parse_section, read_params
from graft.tasks.common.data.task import METRICS
from graft.tasks.evaluate.params import EvaluateParams
from graft.tasks.features.params import FeaturesParams
from graft.tasks.finetune.params import FinetuneParams
from graft.tasks.head.params import HeadParams
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.register.params import RegisterParams


class RetrainParams(Section):
    """How the flow `retrain` works. No stage's result depends on it."""

    time_limit_minutes: float = Field(120.0, gt=0)
    """Minutes after which a stage's processes are killed, or `sync` is abandoned, and the run fails."""

    retries: int = Field(2, ge=0)
    """How often a stage is retried after an I/O failure; no other failure is retried."""

    retry_seconds: float = Field(30.0, ge=0)
    """Seconds to wait before each retry."""

    source: Literal["git", "import-url", "inbox"] = "git"
    """Where an unattended run gets new images: `git`, someone pushes a new data/raw.dvc; `import-url`, `dvc update` of
    the source that data/raw.dvc was imported from; `inbox`, files dropped into a folder."""

    inbox: str | None = None
    """The folder for `source: inbox`, laid out as for `graft import`; absolute, or relative to the project."""

    settle_seconds: float = Field(60.0, ge=0)
    """A file in the inbox that changed less than this many seconds ago waits for the next run."""

    remote: str = "origin"
    """The git remote to fetch from and push to; without one, results stay on a local branch."""

    branch: str = "main"
    """The branch to retrain and to push results to."""

    ask: int = Field(40, ge=0)
    """After an unattended run in which the pool of images without a label changed: how many images people are asked to
    label, see `graft label`; 0 for none."""

    label_page: str | None = None
    """The address of the label page, for the notification that asks for labels."""

    promote: Literal["auto", "manual"] = "auto"
    """Whether a challenger that passes the gate in an unattended run becomes champion at once (`auto`) or waits for
    `graft promote` (`manual`)."""

    notify: tuple[str, ...] = ()
    """Where notifications go: webhook URLs, `env:NAME` of a variable that holds one, or Prefect notification blocks as
    `type/name`."""

    notify_on: tuple[Literal["failure", "refusal", "promotion", "drift", "labels"], ...] = (
        "failure",
        "refusal",
        "promotion",
        "drift",
        "labels",
    )
    """Which events are notified; a challenger that waits for `graft promote` counts as a promotion, one that is
    undecided as a refusal; drift is what `graft schedule --drift` finds; `labels` asks for labels."""

    @model_validator(mode="after")
    def _has_an_inbox(self) -> Self:
        if self.source == "inbox" and not self.inbox:
            raise ValueError("source: inbox needs a folder: set inbox")
        for place in self.notify:
            if not re.fullmatch(r"https?://\S+|env:[A-Za-z_]\w*|[a-z0-9-]+/[a-z0-9-]+", place):
                raise ValueError(f"notify takes https://..., env:NAME or a block as type/name, got {place}")
        return self


class ComputeParams(Section):
    """Where features are computed. No stage's result depends on it: features are the same on every engine."""

    engine: Literal["local", "ray"] = "local"
    """`local`: by this machine; `ray`: by the nodes of a Ray cluster, which fetch the images from the DVC remote."""

    address: str | None = Field(None, pattern=r"^https?://")
    """The address of the cluster's job server, such as http://head:8265; null: http://127.0.0.1:8265."""

    exchange: str | None = None
    """Where this machine and the nodes exchange jobs and results: an address that DVC takes for a remote, such as
    s3://bucket/folder, ssh://host/folder, remote://NAME/folder, or a folder that all nodes see; null: the folder
    `graft` in the DVC remote."""

    block: int = Field(1024, ge=64, multiple_of=64)
    """Images and views that a node gets at once, a multiple of 64: what is computed again when a node is lost."""

    lease_seconds: float = Field(60.0, ge=3)
    """A job ends by itself when the machine that submitted it has been silent for this long."""

    node_cache_gb: float = Field(10.0, gt=0)
    """Disk space of each node for fetched images; those used least recently are removed first."""


GateMetric = Literal[
    "auto",
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "auroc",
    "mean_average_precision",
    "kappa",
    "r2",
    "average_precision",
    "psnr",
    "ssim",
    "dice",
    "iou",
]
"""`auto`, or a metric of any task."""


class GateParams(Section):
    """What a challenger must achieve to replace the champion; both are scored on the current test images."""

    metric: GateMetric = "auto"
    """The metric that both are compared by. `auto`: balanced accuracy where the head weights its classes, otherwise
    accuracy, mean average precision (multi-label), R2 (regression) or AUROC (anomaly)."""

    rule: Literal["not_worse", "better"] = "not_worse"
    """What must be shown beyond chance: `not_worse`, that the challenger is not worse than the champion by more than
    `margin`; `better`, that it is better by more than `min_gain`."""

    margin: float = Field(0.02, ge=0)
    """With `not_worse`: the loss that would not matter, in units of the metric (0.02 of accuracy are 2 points)."""

    min_gain: float = Field(0.0, ge=0)
    """With `better`: the gain that a challenger must exceed, in units of the metric."""

    undecided: Literal["wait", "promote"] = "wait"
    """What follows with `not_worse` if there are too few test images to tell: the challenger waits for more images or
    for `graft promote`, or it is promoted because nothing speaks against it."""

    significance: float = Field(0.05, gt=0, lt=0.5)
    """The probability of promoting a challenger that is worse by `margin` (`better`: better by only `min_gain`), and of
    refusing one that equals the champion, over all checks that fail beyond chance."""

    min_class_recall: float | dict[str, float] = 0.0
    """The minimum recall (multi-label: average precision) of every class, or of the classes that are named."""

    max_class_drop: float = Field(0.1, ge=0)
    """The largest loss of recall (multi-label: average precision) of a class that is allowed beyond chance."""

    min_class_images: int = Field(10, ge=1)
    """A class with fewer test images is exempt from `min_class_recall` and `max_class_drop`."""

    max_calibration_rise: float = Field(0.05, ge=0)
    """The largest rise of the expected calibration error over the champion's."""

    max_latency_ratio: float = Field(3.0, gt=0)
    """The largest ratio of the challenger's latency for a single image to the champion's, on this machine."""

    max_latency_ms: float | None = Field(None, gt=0)
    """The maximum latency for a single image on this machine, in milliseconds."""

    max_leaked: float = Field(0.01, ge=0, le=1)
    """The largest share of test images that are copies of training images, according to the stage audit."""

    max_suspect: float = Field(0.2, ge=0, le=1)
    """The largest share of new images whose label the stage audit suspects to be wrong."""

    lost_classes: Literal["refuse", "note"] = "refuse"
    """What follows if the challenger does not know a class that the champion knows."""

    drift: Literal["note", "refuse", "off"] = "note"
    """What follows if new images differ from the champion's training images; the section `drift` sets up the test."""

    @model_validator(mode="after")
    def _gain_has_its_rule(self) -> Self:
        if self.min_gain and self.rule == "not_worse":
            raise ValueError("min_gain needs rule: better; what not_worse may lose is margin")
        return self

    def min_recall_of(self, name: str) -> float:
        least = self.min_class_recall
        return least.get(name, 0.0) if isinstance(least, dict) else least


class DriftParams(Section):
    """How `graft drift` compares new images with those that a model was trained on."""

    significance: float = Field(0.01, gt=0, lt=0.5)
    """The probability of reporting drift where there is none."""

    min_effect: float = Field(0.0, ge=0)
    """A smaller overall shift is not reported as drift, however certain it is: the distance between the two means in
    units of the spread within."""

    far_quantile: float = Field(0.95, ge=0.5, lt=1)
    """An image counts as far if its distance to the nearest training image exceeds this quantile of the distances
    among training images."""

    sample: int = Field(1000, ge=20, le=4000)
    """The maximum number of new images that are compared; they are chosen at random."""

    permutations: int = Field(1000, ge=100, le=10_000)
    """Of both tests; at least 2 / significance, or no result could be significant."""

    seed: int = 0
    """Seed of the sample and of the permutations."""

    @model_validator(mode="after")
    def _can_find_drift(self) -> Self:
        if self.permutations + 1 < 2 / self.significance:
            raise ValueError(
                f"permutations must be at least 2 / significance, got {self.permutations} and {self.significance:g}"
            )
        return self


class CardParams(Section):
    """What only people know about the model, for the model card of `graft packet`. No stage's result depends on it, and
    a text that is null is named as missing in the card."""

    provider: str | None = None
    """The person or organisation that answers for the model."""

    contact: str | None = None
    """How to reach them: an address for questions and complaints."""

    license: str | None = None
    """The licence of the model, as an SPDX identifier (`apache-2.0`), or in words."""

    data_license: str | None = None
    """The licence of the images, as an SPDX identifier or in words."""

    data_source: str | None = None
    """Where the images come from, who collected and selected them, and how."""

    intended_use: str | None = None
    """What the model is for, by whom and on which images it may be used."""

    out_of_scope: str | None = None
    """What the model must not be used for."""

    limits: str | None = None
    """Known limits: conditions under which it fails, groups that it serves worse, foreseeable unintended outcomes."""

    oversight: str | None = None
    """How people oversee it: who sees its answers, and can stop or override it."""

    risk_management: str | None = None
    """The risk management system (Article 9 of the EU AI Act), or where it is described."""

    standards: str | None = None
    """The harmonised standards and other specifications that are applied."""

    declaration: str | None = None
    """Where the EU declaration of conformity is."""

    monitoring: str | None = None
    """How its performance is monitored in use, and the post-market monitoring plan (Article 72)."""


class Params(Section):
    """Graft's params.yaml."""

    preprocess: PreprocessParams = PreprocessParams()
    features: FeaturesParams = FeaturesParams()
    head: HeadParams = HeadParams()
    audit: AuditParams = AuditParams()
    finetune: FinetuneParams = FinetuneParams()
    evaluate: EvaluateParams = EvaluateParams()
    register_: RegisterParams = Field(RegisterParams(), alias="register")
    compute: ComputeParams = ComputeParams()
    retrain: RetrainParams = RetrainParams()
    gate: GateParams = GateParams()
    drift: DriftParams = DriftParams()
    card: CardParams = CardParams()

    def sections(self) -> dict[str, Section]:
        """Section -> its parameters, by the names and in the order of the file."""
        return {info.alias or field: getattr(self, field) for field, info in type(self).model_fields.items()}


SECTIONS: dict[str, type[Section]] = {
    field.alias or name: field.annotation  # type: ignore[misc]
    for name, field in Params.model_fields.items()
}
"""Section -> its model, in the order of the file."""


def load_params(path: Path) -> Params:
    """Reads and checks every section of a params.yaml.

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
    parsed = {name: parse_section(model, content.get(name), name, path.name) for name, model in SECTIONS.items()}
    found = Params.model_validate(parsed)
    check_metric(found.gate.metric, found.head, f"{path.name}: `gate.metric`")
    return found


def compute_params(path: Path) -> ComputeParams:
    """The section `compute` alone.

    Raises:
        ParamsError: an unknown key in it, or a value out of range.
    """
    return parse_section(ComputeParams, read_params(path).get("compute"), "compute", path.name)


def check_metric(metric: str, head: HeadParams, name: str) -> None:
    """Raises:
    ParamsError: it is neither `auto` nor a metric of `head.task`.
    """
    allowed = ["auto", *(one.key for one in METRICS[head.task])]
    if metric not in allowed:
        raise ParamsError(
            f"{name} is not a metric for this task",
            got=f"{metric}, where `head.task` is {head.task}",
            allowed=" | ".join(allowed),
            todo="use auto, or a metric of the task",
        )


def model_name(project: Path) -> str:
    """`register.name`: the project's model in MLflow's registry.

    Raises:
        ParamsError: params.yaml is wrong.
    """
    return load_params(Paths(project).params).register_.name


def json_schema() -> dict[str, Any]:
    """The JSON Schema of params.yaml, for completion, descriptions and checks in editors."""
    schema = Params.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Graft's params.yaml"}
