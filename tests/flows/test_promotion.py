"""Promotion, rollback and the ledger, on a real registry with two versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from projects import Project, Rerun

from flows import ledger, promotion
from flows.registry import aliases_of, find_version
from flows.tracking import Tracker
from tasks.common.errors import GraftError


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
    kept = ledger.mend(tracker, "graft")
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


def test_a_model_that_does_not_load_is_not_promoted(tracker: Tracker, tmp_path: Path) -> None:
    whole = Path(tracker.client.get_model_version_download_uri("graft", "2").removeprefix("file://"))
    broken = shutil.copytree(whole, tmp_path / "broken")
    (broken / "artifacts" / "package" / "graph.xml").unlink()
    made = tracker.client.create_model_version("graft", broken.as_uri(), version(tracker).run_id)

    with pytest.raises(GraftError, match="cannot be used"):
        promotion.promote(tracker, made, "it is better")

    assert aliases(tracker) == {"champion": "1", "challenger": "2"}
    assert [entry.what for entry in ledger.entries(tracker, "graft")] == ["first"]


def test_a_smoke_test_that_fails_at_the_end_restores_everything(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fails_by_alias(uri: str) -> None:
        asked.append(uri)
        if "@" in uri:
            raise GraftError("it does not answer by its alias")

    monkeypatch.setattr(promotion, "try_out", fails_by_alias)
    with pytest.raises(GraftError, match="by its alias"):
        promotion.promote(tracker, version(tracker), "it is better")
    assert asked == ["models:/graft/2", "models:/graft@champion"]
    assert aliases(tracker) == {"champion": "1", "challenger": "2"}
    assert [entry.what for entry in ledger.entries(tracker, "graft")] == ["first"]
    assert promotion.PENDING not in tracker.client.get_registered_model("graft").tags


def test_a_run_that_died_in_the_middle_is_undone_by_the_next(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Death(BaseException):
        """As if the process had been killed: nothing of ours runs after it."""

    def dies(*_: object) -> None:
        raise Death

    monkeypatch.setattr(promotion, "_restore", dies)
    monkeypatch.setattr(promotion, "try_out", lambda uri: dies() if "@" in uri else None)
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


def test_the_file_and_mlflow_mend_each_other(project: Project, tracker: Tracker) -> None:
    promotion.promote(tracker, version(tracker), "it is better")
    whole = ledger.mend(tracker, "graft")
    file = project.root / ledger.FILE
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["what"] for line in lines] == ["first", "promoted"]

    file.unlink()
    assert ledger.mend(tracker, "graft") == whole
    for number in ("1", "2"):
        for key in version(tracker, number).tags:
            if key.startswith(ledger.TAG):
                tracker.client.delete_model_version_tag("graft", number, key)
    assert ledger.mend(tracker, "graft") == whole
    file.unlink()
    assert ledger.mend(tracker, "graft") == whole, "MLflow had them back"


def test_a_line_that_is_no_entry_is_named(project: Project, tracker: Tracker) -> None:
    (project.root / ledger.FILE).write_text("{}\nnonsense\n", encoding="utf-8")
    with pytest.raises(GraftError, match=r"ledger\.jsonl, line 1"):
        ledger.entries(tracker, "graft")


def test_a_long_reason_fits_into_mlflow(tracker: Tracker) -> None:
    why = "because " * 2000
    entry = promotion.refuse(tracker, version(tracker), "1", why, {}, "http://run")
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

    assert "is the champion again" in project.graft_here("rollback", "--why", "we did not").stdout
    table = project.graft_here("ledger", COLUMNS="200").stdout
    assert [what in table for what in ("first", "promoted", "rolled back", "we know better")] == [True] * 4
    assert len(json.loads(project.graft_here("ledger", "--json").stdout)) == 3


def test_a_project_without_a_model_says_so(empty_project: Project) -> None:
    done = empty_project.graft_here("promote", check=False)
    assert done.returncode == 2
    assert "no model is registered" in done.stderr
    assert not (empty_project.root / "mlflow.db").exists(), "to ask does not make a store"
