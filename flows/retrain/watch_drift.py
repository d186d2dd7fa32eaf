"""The Prefect flow `drift`: whether the images that arrive still look like those that the champion was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from graft.tasks.common.core.paths import Paths
from graft.tasks.environment import prepare_process

from ..registry.models import CHAMPION
from ..runtime.params import load_params
from ..studies.drift import DriftReport, TooFew, check_drift
from ..studies.drift_text import sentences
from .deployment import refuse_another_project, refuse_another_source
from .notices import failures_notified, send
from .pages import flow_run_page
from .run_log import make_brief
from .send_notice import Notice
from .zombies import mark_crashed_runs, sign


def _run_name() -> str:
    return f"drift {Path(runtime.flow_run.parameters['project']).resolve().name}"


@flow(name="drift", flow_run_name=_run_name, persist_result=False, log_prints=False)
def drift(project: str, source: str, model: str = CHAMPION) -> Any:
    """Compares the images in a folder with those that a model was trained on, and notifies of drift.

    Args:
        project: the folder of dvc.yaml.
        source: a folder of images, such as that of `graft serve --log`, or a table of their paths.
        model: an alias or a version of the registered model.

    Returns:
        `verdict` (none or drift), `tests` (those that found it), `images`; or Prefect's state Completed if there are
        too few images to tell.

    Raises:
        GraftError: the images cannot be compared, or this is the run of a deployment for another project or folder.
    """
    make_brief()
    prepare_process()
    root = Path(project).resolve()
    refuse_another_project(root)
    refuse_another_source(source)
    if runtime.deployment.id:
        sign(str(runtime.flow_run.id))
        mark_crashed_runs(str(runtime.deployment.id))
    params = load_params(Paths(root).params).retrain
    with failures_notified(params):
        try:
            report = check_drift(root, Path(source), model)
        except TooFew as few:
            get_run_logger().info("%s", few)
            return Completed(message=f"{few.what}: {few.got}")
        text = _text(report)
        create_markdown_artifact(text, key="drift", description="The new images beside the training images")
        if report.verdict == "drift":
            title = f"{runtime.flow_run.name}: {source} differs from the training images"
            send(params, Notice("drift", title, text, {"the run": flow_run_page()}, _facts(report)))
    return _facts(report)


def _facts(report: DriftReport) -> dict[str, Any]:
    return {"verdict": report.verdict, "tests": list(report.tests), "images": report.document["images"]}


def _text(report: DriftReport) -> str:
    found = report.document
    rows = [
        f"| {name} | {found[key]['value']:.3f} | {found[key]['chance']:.3f} | {found[key]['p']:.2g} |"
        for key, name in (("mmd", "overall shift"), ("far", "share of far images"))
    ]
    said = sentences(found, f"{found['model']} version {found['version']}")
    return "\n".join([*said, "", "| test | found | by chance | p |", "| --- | ---: | ---: | ---: |", *rows])
