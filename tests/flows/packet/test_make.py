"""A packet: always the same, logged to MLflow, and complete as far as the record is."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from graft.flows.packet.make import make_packet
from graft.flows.registry.description import CARD, CARD_END, GATE_HEAD, LONGEST, gate_of, with_card, with_gate
from graft.tasks.common.core.errors import GraftError

from .conftest import GATE

if TYPE_CHECKING:
    from .conftest import Made


def test_the_same_version_gives_the_same_packet_and_the_zip_is_that_folder(made: Made) -> None:
    assert made.first["digest"] == made.again["digest"] == made.json("packet.json")["digest"]
    with zipfile.ZipFile(made.zip) as file:
        inside = {info.filename: file.read(info) for info in file.infolist()}
    files = (file for file in made.folder.rglob("*") if file.is_file())
    assert inside == {f"graft-1/{file.relative_to(made.folder).as_posix()}": file.read_bytes() for file in files}
    assert made.project.git("status", "--porcelain", "--", "packets") == ""


def test_it_is_whole_and_names_what_nobody_stated(made: Made) -> None:
    listed = made.json("packet.json")["files"]

    assert made.first["missing"] == {}
    assert {"declaration", "oversight"} <= {*made.first["not_stated"]}
    assert "provider" not in made.first["not_stated"]
    assert {"report/index.html", "report/audit/index.html", "trace.html", "labels.csv", "run/dvc.lock"} <= listed.keys()
    assert [json.loads(line)["what"] for line in made.text("ledger.jsonl").splitlines()] == ["first", "promoted"]
    assert "| gain | passed |" in made.text("gate.md")


def test_mlflow_gets_the_packet_and_the_description_gets_the_card_and_keeps_the_rest(made: Made) -> None:
    client = made.project.mlflow()
    version = client.get_model_version("graft", "1")

    place = f"packet/{made.first['digest'].removeprefix('sha256:')[:12]}"
    names = {file.path.removeprefix(f"{place}/") for file in client.list_artifacts(version.run_id, place)}
    assert names >= {"README.md", "packet.json", "report"}
    assert version.tags["graft.packet"] == made.first["digest"]
    assert version.description.startswith("By hand.")
    assert version.description.count(CARD) == 1
    assert "## 1. General description" in version.description
    assert gate_of(version.description) == GATE
    assert len(version.description) <= LONGEST


def test_a_description_keeps_every_part_but_the_one_that_is_written() -> None:
    parts = ["# title", "## one\n\ntext", "x" * LONGEST]
    first = with_card("By hand.", parts, "More.")
    both = with_gate(first, "Refused.")
    again = with_card(both, ["# other"], "More.")

    assert first == f"By hand.\n\n{CARD}\n\n# title\n\n## one\n\ntext\n\nMore.\n\n{CARD_END}"
    assert (gate_of(again), again.startswith("By hand."), "title" in again) == ("Refused.", True, False)
    assert with_card(f"y{GATE_HEAD}{'z' * LONGEST}", parts, "More.") == f"y{GATE_HEAD}{'z' * LONGEST}"


def test_what_is_lost_is_named_and_the_rest_is_written(made: Made, tmp_path: Path) -> None:
    project = made.project.copy(tmp_path / "project")
    shutil.rmtree(project.root / ".dvc" / "cache")
    shutil.rmtree(project.root / ".graft" / "cache", ignore_errors=True)
    project.mlflow().delete_run(project.json("runs/preprocess.json")["run_id"])

    told = make_packet(project.root, "1", tmp_path / "out")

    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert told["missing"].keys() >= {"data/raw.dir.json", "report/audit"}
    assert "its page is the copy in MLflow" in told["missing"]["report/audit"]
    assert (tmp_path / "out" / "report" / "index.html").is_file()
    assert "<code>data/raw.dir.json</code>" in page
    assert 'href="data/raw.dir.json"' not in page


def test_a_folder_with_something_else_and_an_unknown_version_are_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(GraftError, match="holds something else"):
        make_packet(made.project.root, "1", tmp_path)
    with pytest.raises(GraftError, match="no version `9`"):
        make_packet(made.project.root, "9", tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
