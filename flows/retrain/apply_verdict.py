"""What becomes of a challenger that the gate has judged: the ledger and the aliases."""

from __future__ import annotations

from mlflow.entities.model_registry import ModelVersion

from ..gate.verdict import Verdict
from ..registry import ledger, promotion
from ..registry.models import CHAMPION, aliases_of
from ..runtime.params import RetrainParams
from ..tracking.tracker import Tracker
from .outcome import Outcome, What
from .pages import flow_run_page
from .working_copy import WorkingCopy

LEFT: tuple[What, ...] = ("waits", "undecided", "refused")
"""The outcomes that leave the champion as it is."""


def decide(
    copy: WorkingCopy, verdict: Verdict, parent: str, tracker: Tracker, version: ModelVersion
) -> tuple[Outcome, list[ledger.Entry]]:
    """Promotes or refuses a version, or leaves it waiting; returns the outcome and the ledger.

    A retry gives the same result: the ledger says what the first attempt did. Within `ledger.locked`.
    """
    kept = promotion.settle(tracker, version.name)
    champion, number = aliases_of(tracker, version.name).get(CHAMPION, ""), str(version.version)
    decided = ledger.decided(kept, number)
    if decided is not None and decided.flow_run_url == flow_run_page() and decided.what in ("promoted", *LEFT):
        return Outcome(decided.what, version.name, number, decided.previous, verdict), kept
    word = {"promote": "passed", "undecided": "undecided", "refuse": "refused"}[verdict.result]
    tracker.client.set_model_version_tag(version.name, number, promotion.GATE, f"{word}: {verdict.sentence}"[:5000])
    what = _what(copy, verdict, copy.params()[0], champion == number)
    made_here = copy.made_by() == (parent, version.run_id)
    if what == "champion" and decided is not None and decided.what == "first" and made_here:
        what = "first"
    if what == "promoted":
        promotion.promote(
            tracker, version, verdict.sentence, metrics=verdict.metrics, flow_run_url=flow_run_page(),
            tested=verdict.tested,
        )  # fmt: skip
    elif what in ("waits", "undecided", "refused") and (decided is None or decided.what != what):
        promotion.leave(
            tracker, version, what, champion, verdict.sentence, verdict.metrics, flow_run_page(), verdict.tested
        )
    return Outcome(what, version.name, number, champion, verdict), ledger.reconcile(tracker, version.name)


def _what(copy: WorkingCopy, verdict: Verdict, params: RetrainParams, champion: bool) -> What:
    if champion:
        return "champion"
    if verdict.result == "undecided":
        return "undecided"
    if verdict.result == "refuse":
        return "refused"
    return "promoted" if copy.workspace is not None and params.promote == "auto" else "waits"
