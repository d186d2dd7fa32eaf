"""Promotion, rollback and the ledger, on a real registry with two versions."""

from __future__ import annotations

import importlib.util
import itertools
import json
import py_compile
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path

import pytest
from projects import ROOT, Project, Rerun

from graft.flows.gate.verdict import Verdict, unopposed
from graft.flows.registry import integrity, ledger, promotion
from graft.flows.registry.looks import sampled
from graft.flows.registry.models import aliases_of, fetched_model, fetched_package, find_version, key_of
from graft.flows.retrain.apply_verdict import decide
from graft.flows.retrain.working_copy import WorkingCopy
from graft.flows.retrain.worktree import Workspace
from graft.flows.tracking.tracker import Tracker
from graft.flows.versioning import dvc
from graft.tasks.common.core.errors import GraftError, TransientError


@pytest.fixture
def project(rerun: Rerun, tmp_path: Path) -> Project:
    """A project whose champion is version 1 and whose challenger is version 2."""
    return rerun.copy(tmp_path / "project")


@pytest.fixture
def tracker(project: Project) -> Tracker:
    return Tracker(project.root)


def aliases(tracker: Tracker) -> dict[str, str]:
    return aliases_of(tracker, "graft")


def version(tracker: Tracker, number: str = "2"):  # type: ignore[no-untyped-def]
    return find_version(tracker, "graft", number)


def test_the_first_version_is_in_the_ledger_by_itself(tracker: Tracker) -> None:
    (first,) = ledger.entries(tracker, "graft")
    assert (first.what, first.version, first.previous) == ("first", "1", "")
    assert first.data_hash.endswith(".dir")


def test_promotion_names_the_champion_and_the_previous_one(tracker: Tracker) -> None:
    entry = promotion.promote(tracker, version(tracker), "it is better", metrics={"accuracy": 0.9})

    assert aliases(tracker) == {"champion": "2", "previous": "1", "challenger": "2"}
    kept = ledger.reconcile(tracker, "graft")
    assert kept[-1] == entry
    assert (entry.what, entry.previous, entry.why, entry.metrics) == (
        "promoted",
        "1",
        "it is better",
        {"accuracy": 0.9},
    )
    assert ledger.read(tracker.paths.root) == kept, "the file has it too"
    assert promotion.PENDING not in tracker.client.get_registered_model("graft").tags


def test_a_rollback_brings_the_previous_champion_back(tracker: Tracker) -> None:
    promotion.promote(tracker, version(tracker), "it is better")
    entry = promotion.roll_back(tracker, "graft", "customers complain")

    assert aliases(tracker) == {"champion": "1", "challenger": "2"}, "before version 1 there was none"
    assert (entry.what, entry.version, entry.previous) == ("rolled_back", "1", "2")
    assert ledger.champion_of(ledger.entries(tracker, "graft")) == "1"
    with pytest.raises(GraftError, match="no previous champion"):
        promotion.roll_back(tracker, "graft", "once more")


@pytest.fixture
def copied(tracker: Tracker, tmp_path: Path) -> Path:
    """Version 3: a copy of version 2, whose files a test may change."""
    return copy_of(tracker, tmp_path / "artifacts")


def copy_of(tracker: Tracker, folder: Path) -> Path:
    whole = Path(tracker.client.get_model_version_download_uri("graft", "2").removeprefix("file://"))
    shutil.copytree(whole, folder)
    tracker.client.create_model_version("graft", folder.as_uri(), version(tracker).run_id)
    return folder


def vouch(tracker: Tracker, number: str = "3") -> None:
    """As registration does."""
    key = key_of(version(tracker, number))
    with fetched_model(tracker, version(tracker, number), unverified=True):
        assert key in integrity.at_hand(tracker.paths.root)


def refused(tracker: Tracker, match: str) -> GraftError:
    """The error; that nothing has changed is checked."""
    with pytest.raises(GraftError, match=match) as caught:
        promotion.promote(tracker, version(tracker, "3"), "it is better")
    assert aliases(tracker) == {"champion": "1", "challenger": "2"}
    assert [entry.what for entry in ledger.entries(tracker, "graft")] == ["first"]
    return caught.value


def test_a_model_that_does_not_load_is_not_promoted(tracker: Tracker, copied: Path) -> None:
    (copied / "artifacts" / "package" / "graph.xml").unlink()
    vouch(tracker)
    refused(tracker, "cannot be used")


def test_a_changed_model_is_refused_and_nothing_of_it_runs(tracker: Tracker, copied: Path, tmp_path: Path) -> None:
    vouch(tracker)
    proof = tmp_path / "it ran"
    code = copied / "model.py"
    code.write_text(f"open({str(proof)!r}, 'w').close()\n{code.read_text(encoding='utf-8')}", encoding="utf-8")

    error = refused(tracker, "are not those that were registered")

    assert not proof.exists()
    assert str(error.allowed).startswith("sha256:")
    for use in (fetched_model, fetched_package):
        with pytest.raises(GraftError, match="not those"), use(tracker, version(tracker, "3")):
            raise AssertionError("it was given out")
    with pytest.raises(GraftError, match="not those"):
        promotion.promote(tracker, version(tracker, "3"), "it is better", unverified=True)
    assert not proof.exists()


def test_compiled_code_that_was_put_beside_the_source_does_not_run(
    tracker: Tracker, copied: Path, tmp_path: Path
) -> None:
    vouch(tracker)
    proof = tmp_path / "it ran"
    for source in (copied / "code").rglob("*.py"):
        evil = tmp_path / source.name
        evil.write_text(f"open({str(proof)!r}, 'w').close()\n", encoding="utf-8")
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(evil), importlib.util.cache_from_source(str(source)), invalidation_mode=mode)

    promotion.promote(tracker, version(tracker, "3"), "it is better")

    assert not proof.exists()


def test_what_mlflow_alone_vouches_for_is_refused_unless_told(project: Project, tracker: Tracker, copied: Path) -> None:
    forged = ledger.new_entry(tracker, version(tracker, "3"), "refused", "1", "forged")
    ledger.enter(tracker, replace(forged, digest=integrity.digest(copied)))
    tracker.client.set_model_version_tag("graft", "3", integrity.TAG, integrity.digest(copied))
    ledger.reconcile(tracker, "graft")

    done = project.graft_here("promote", "3", "--anyway", check=False)
    assert done.returncode == 2
    assert "promote 3 --unverified" in done.stderr

    told = json.loads(project.graft_here("promote", "3", "--anyway", "--unverified", "--json").stdout)
    assert told["digest"] == integrity.digest(copied)
    again = json.loads(project.graft_here("promote", "3", "--anyway", "--unverified", "--json").stdout)
    assert again["id"] == told["id"], "the champion is vouched for"
    (copied / "model.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(GraftError, match="not those"), fetched_package(tracker, version(tracker, "3")):
        raise AssertionError("it was given out")


def test_the_digest_is_found_in_the_stages_run_the_ledger_and_gits_history(
    project: Project, tracker: Tracker, finished: Project
) -> None:
    first, second = (key_of(version(tracker, number)) for number in ("1", "2"))
    digests = [ledger.digest_of(project.root, key) for key in (first, second)]
    assert all(value.startswith("sha256:") for value in digests)
    assert (
        version(tracker).tags[integrity.TAG] == digests[1] == project.json("runs/register.json")["registered"]["digest"]
    )
    ledger.reconcile(tracker, "graft")
    assert [entry.digest for entry in ledger.read(project.root)] == digests[:1]

    shutil.rmtree(project.root / ".git" / "graft")
    (project.root / ledger.FILE).unlink()
    assert integrity.at_hand(project.root) == {second: digests[1]}
    assert integrity.in_history(project.root, first) == digests[0], "the commit of the first run names it"
    object_ = dvc.cached_file(project.root, finished.lock()["runs/register.json"])
    assert object_ is not None
    object_.chmod(0o644)
    object_.write_text(object_.read_text().replace(digests[0], "sha256:forged"))
    assert integrity.in_history(project.root, first) == "", "it is not what the commit names"


def test_an_alias_that_leads_elsewhere_at_the_end_restores_everything(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise GraftError("it does not answer by its alias")

    monkeypatch.setattr(promotion, "_check_alias", fails)
    with pytest.raises(GraftError, match="by its alias"):
        promotion.promote(tracker, version(tracker), "it is better")
    assert aliases(tracker) == {"champion": "1", "challenger": "2"}
    assert [entry.what for entry in ledger.entries(tracker, "graft")] == ["first"]
    assert promotion.PENDING not in tracker.client.get_registered_model("graft").tags


def test_a_run_killed_in_the_middle_is_undone_by_the_next(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Death(BaseException):
        """As if the process had been killed: nothing of ours runs after it."""

    def fail(*_: object) -> None:
        raise Death

    monkeypatch.setattr(promotion, "_restore", fail)
    monkeypatch.setattr(promotion, "_check_alias", fail)
    with pytest.raises(Death):
        promotion.promote(tracker, version(tracker), "it is better")
    assert aliases(tracker)["champion"] == "2", "half changed"
    monkeypatch.undo()

    kept = promotion.settle(tracker, "graft")

    assert aliases(tracker) == {"champion": "1", "challenger": "2"}
    assert [entry.what for entry in kept] == ["first"]
    assert not promotion.recover(tracker, "graft"), "once is enough"


def test_an_alias_that_was_moved_by_hand_is_noted(tracker: Tracker) -> None:
    tracker.client.set_registered_model_alias("graft", "champion", "2")
    kept = promotion.settle(tracker, "graft")
    assert [(entry.what, entry.version, entry.previous) for entry in kept][1:] == [("by_hand", "2", "1")]
    assert promotion.settle(tracker, "graft") == kept


def test_the_file_and_mlflow_are_reconciled(project: Project, tracker: Tracker) -> None:
    promotion.promote(tracker, version(tracker), "it is better")
    whole = ledger.reconcile(tracker, "graft")
    file = project.root / ledger.FILE
    lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert [json.loads(line)["what"] for line in lines] == ["first", "promoted"]

    file.unlink()
    assert ledger.reconcile(tracker, "graft") == whole
    for number in ("1", "2"):
        for key in version(tracker, number).tags:
            if key.startswith(ledger.TAG):
                tracker.client.delete_model_version_tag("graft", number, key)
    assert ledger.reconcile(tracker, "graft") == whole
    file.unlink()
    assert ledger.reconcile(tracker, "graft") == whole, "MLflow had them back"


def test_a_line_that_is_no_entry_is_named(project: Project, tracker: Tracker) -> None:
    (project.root / ledger.FILE).write_text("{}\nnonsense\n", encoding="utf-8")
    with pytest.raises(GraftError, match=r"ledger\.jsonl, line 1"):
        ledger.entries(tracker, "graft")


def test_a_reason_may_hold_any_sign(project: Project, tracker: Tracker) -> None:
    why = "one\u2028two\u0085three\nfour\x0b\x1cfive"
    project.graft_here("promote", "--anyway", "--why", why, "--json")
    assert ledger.read(project.root)[-1].why == why
    assert ledger.entries(tracker, "graft")[-1].why == why
    project.graft_here("rollback")


def test_a_clock_that_is_behind_changes_no_order(
    project: Project, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Behind:
            return cls(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr(ledger, "datetime", Behind)
    promotion.promote(tracker, version(tracker), "it is better")
    kept = promotion.settle(tracker, "graft")
    assert [(entry.what, entry.number) for entry in kept] == [("first", 1), ("promoted", 2)]
    lines = (project.root / ledger.FILE).read_text(encoding="utf-8")
    promotion.roll_back(tracker, "graft", "customers complain")
    assert [entry.what for entry in promotion.settle(tracker, "graft")] == ["first", "promoted", "rolled_back"]
    assert (project.root / ledger.FILE).read_text(encoding="utf-8").startswith(lines), "only added to"


TURNS = """
import sys
from pathlib import Path
from graft.flows.registry.decisions import promote_version
from graft.tasks.common.core.errors import GraftError

done = 0
for turn in range(4):
    try:
        promote_version(Path(sys.argv[1]), str(2 + (turn + int(sys.argv[2])) % 2), "", anyway=True)
        done += 1
    except GraftError as error:
        assert "is the champion already" in str(error), error
print(done)
"""


def test_of_promotions_at_the_same_moment_the_last_is_the_champion_and_none_is_lost(
    project: Project, tracker: Tracker, copied: Path
) -> None:
    vouch(tracker)
    command = [sys.executable, "-c", TURNS, str(project.root)]
    environment = {**project.environment(), "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([*command, turn], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for turn in "01"
    ]
    done = [int(process.communicate()[0]) for process in both]
    kept = ledger.read(project.root)
    assert ledger.champion_of(kept) == aliases(tracker)["champion"]
    assert [entry.what for entry in kept] == ["first", *["promoted"] * sum(done)]
    for earlier, later in itertools.pairwise(kept):
        assert later.previous == earlier.version
        assert later.number == earlier.number + 1


def test_a_promotion_that_is_tried_again_is_still_one(
    project: Project, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(project.root, project.root, project.root, "", "main", "")
    copy, verdict = WorkingCopy(project.root, project.root, workspace), unopposed((), "it is better")
    parent = project.json("runs/register.json")["parent_run_id"]
    reconcile, calls = ledger.reconcile, itertools.count()

    def fails_once(tracker: Tracker, name: str) -> list[ledger.Entry]:
        if next(calls) == 1:
            raise TransientError("the server does not answer")
        return reconcile(tracker, name)

    monkeypatch.setattr(ledger, "reconcile", fails_once)
    with pytest.raises(TransientError):
        decide(copy, verdict, parent, tracker, version(tracker))
    assert aliases(tracker)["champion"] == "2"

    outcome, kept = decide(copy, verdict, parent, tracker, version(tracker))

    assert (outcome.what, outcome.version, outcome.previous) == ("promoted", "2", "1")
    assert [entry.what for entry in kept] == ["first", "promoted"]


def test_a_version_that_is_undecided_stays_challenger_and_may_be_promoted_by_hand(
    project: Project, tracker: Tracker
) -> None:
    workspace = Workspace(project.root, project.root, project.root, "", "main", "")
    copy = WorkingCopy(project.root, project.root, workspace)
    verdict = Verdict("undecided", "too few images to tell", (), {}, sampled(["0a" * 16, "0b" * 16]))

    outcome, kept = decide(copy, verdict, "the parent", tracker, version(tracker))

    assert (outcome.what, outcome.about()) == ("undecided", "refusal")
    assert outcome.sentence() == "version 2 of `graft` is undecided, and waits for more images: too few images to tell"
    assert (kept[-1].what, kept[-1].test_images, kept[-1].test_sample) == ("undecided", 2, ["0a0a0a0a", "0b0b0b0b"])
    assert aliases(tracker)["champion"] == "1"
    assert version(tracker).tags[promotion.GATE] == "undecided: too few images to tell"
    assert project.graft_here("promote").stdout.startswith("graft version 2 is the champion")


def test_a_long_reason_fits_into_mlflow(tracker: Tracker) -> None:
    why = "because " * 2000
    entry = promotion.leave(tracker, version(tracker), "refused", "1", why, {}, "http://run")
    assert entry.digest == version(tracker).tags[integrity.TAG], "of every entry"
    kept = ledger.entries(tracker, "graft")[-1]
    assert kept.id == entry.id
    assert kept.why.startswith("because because")
    assert kept.why.endswith(" ...")


def test_a_person_promotes_rolls_back_and_reads_the_ledger(project: Project, tracker: Tracker) -> None:
    tracker.client.set_model_version_tag("graft", "2", promotion.GATE, "refused: it is worse")
    refused = project.graft_here("promote", check=False)
    assert refused.returncode == 2
    assert "the gate has refused version 2" in refused.stderr
    assert "it is worse" in refused.stderr

    told = json.loads(project.graft_here("promote", "2", "--anyway", "--why", "we know better", "--json").stdout)
    assert (told["what"], told["version"], told["why"]) == ("promoted", "2", "we know better")
    again = project.graft_here("promote", "2", "--anyway", check=False)
    assert "is the champion already" in again.stderr
    assert "graft rollback for version 1" in again.stderr, "the challenger is this very version"

    assert "is the champion again" in project.graft_here("rollback", "--why", "we did not").stdout
    table = project.graft_here("ledger", COLUMNS="200").stdout
    assert [what in table for what in ("first", "promoted", "rolled back", "we know better")] == [True] * 4
    assert len(json.loads(project.graft_here("ledger", "--json").stdout)) == 3


def test_what_no_gate_has_judged_is_promoted_only_if_told(project: Project, tracker: Tracker) -> None:
    refused = project.graft_here("promote", check=False)

    assert refused.returncode == 2
    assert "the gate has not judged version 2" in refused.stderr
    assert "`graft run` compares" in refused.stderr
    assert aliases(tracker)["champion"] == "1"
    promoted = json.loads(project.graft_here("promote", "--anyway", "--json").stdout)
    assert promoted["metrics"] == {"accuracy": float(version(tracker).tags["test_accuracy"])}
    project.graft_here("rollback")
    project.graft_here("promote", "2")
    assert [entry.what for entry in ledger.read(project.root)][-1] == "promoted", "it was champion before"


def test_a_decision_by_hand_has_the_metrics_and_the_page_of_the_gates(tracker: Tracker) -> None:
    metrics = {"accuracy": 0.9, "champion_accuracy": 0.8}
    promotion.leave(tracker, version(tracker), "waits", "1", "better", metrics, "http://run")

    for entry in (
        promotion.promote(tracker, version(tracker), "we know better"),
        ledger.new_entry(tracker, version(tracker), "by_hand", "1", "moved"),
    ):
        assert (entry.metrics, entry.flow_run_url) == (metrics, "http://run")
        assert not entry.by.startswith("the flow")


def test_a_project_without_a_model_says_so(empty_project: Project) -> None:
    done = empty_project.graft_here("promote", check=False)
    assert done.returncode == 2
    assert "no model is registered" in done.stderr
    assert not (empty_project.root / "mlflow.db").exists(), "to ask does not make a store"
