"""When a run notifies, and with which message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger, runtime

from ..runtime.params import RetrainParams
from ..tracking.tracker import Tracker
from .outcome import Outcome, checks_table
from .pages import flow_run_page, run_link
from .send_notice import Notice, notify
from .steps import notify as notify_step
from .working_copy import WorkingCopy


@contextmanager
def failures_notified(params: RetrainParams) -> Iterator[None]:
    """Sends a notification with the reason if the block fails."""
    try:
        yield
    except Exception as error:
        title = f"{runtime.flow_run.name} failed"
        if params.notify and "failure" in params.notify_on:  # not as a task: Prefect's server may be what has failed
            notice = Notice("failure", title, str(error)[:2000], {"the run": flow_run_page()})
            for problem in notify(list(params.notify), notice):
                get_run_logger().error("%s", problem)
        raise


def notify_of_crash(params: RetrainParams, crash: str) -> None:
    """Notifies that the deployment's last run crashed, which could not do so itself."""
    send(params, Notice("failure", "the last run crashed", crash, {"this run": flow_run_page()}))


def notify_of_outcome(copy: WorkingCopy, params: RetrainParams, outcome: Outcome, parent: str) -> None:
    """Notifies of a promotion or a refusal."""
    about = outcome.about()
    if about:
        links = {"the run": flow_run_page(), "MLflow": run_link(Tracker(copy.root), parent, copy.project)}
        title = f"{runtime.flow_run.name}: {outcome.sentence()}"
        send(params, Notice(about, title, checks_table(outcome.verdict), links, outcome.facts()))


def send(params: RetrainParams, notice: Notice) -> None:
    """Only if `retrain.notify_on` asks for this kind."""
    if params.notify and notice.about in params.notify_on:
        notify_step(list(params.notify), notice)
