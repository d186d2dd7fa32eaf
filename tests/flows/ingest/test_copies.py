"""`graft group-copies`: copies of one picture into one split."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from projects import Project

from graft.flows.ingest.copies import group_copies
from graft.tasks.common.core.errors import DataError


def manifest(project: Project) -> pd.Series:
    """Path -> split."""
    return pd.read_parquet(project.root / "data" / "manifest" / "manifest.parquet").set_index("path")["split"]


def say_leaks(project: Project, *pairs: tuple[str, str]) -> None:
    """Writes what the audit would have found."""
    split = manifest(project)
    rows = [{"path": a, "split": split[a], "other_path": b, "other_split": split[b]} for a, b in pairs]
    file = project.root / "data" / "audit" / "leaks.parquet"
    file.unlink()
    pd.DataFrame(rows, columns=["path", "split", "other_path", "other_split"]).to_parquet(file)


def first_of(project: Project, split: str, number: int = 0) -> str:
    found = manifest(project)
    return str(found.index[found == split][number])


def test_a_copy_moves_to_the_split_of_its_original_and_nothing_else_moves(project: Project) -> None:
    before = manifest(project)
    original, copy = first_of(project, "train"), first_of(project, "test")
    say_leaks(project, (original, copy))

    told = json.loads(project.graft_here("group-copies", "--json").stdout)
    project.repro("preprocess")

    assert told == {"from_val": 0, "from_test": 1, "stay": 0}
    after = manifest(project)
    assert after[copy] == "train"
    assert after.drop(copy).equals(before.drop(copy))


def test_copies_of_copies_go_to_the_earliest_split_of_all_of_them(project: Project) -> None:
    train, val, test = (first_of(project, split) for split in ("train", "val", "test"))
    say_leaks(project, (val, test), (train, val))

    assert group_copies(project.root) == {"from_val": 1, "from_test": 1, "stay": 0}
    assert (project.root / "data" / "pins.csv").read_text(encoding="utf-8").splitlines()[-1].endswith("train")


def test_without_leaks_nothing_is_written(project: Project) -> None:
    pins = project.root / "data" / "pins.csv"
    before = pins.read_bytes()

    assert group_copies(project.root) == {"from_val": 0, "from_test": 0, "stay": 0}
    assert pins.read_bytes() == before


def test_findings_of_another_state_of_the_data_are_left_out(project: Project) -> None:
    say_leaks(project, (first_of(project, "train"), first_of(project, "test")))
    file = project.root / "data" / "audit" / "leaks.parquet"
    pd.read_parquet(file).assign(other_split="val").to_parquet(file)

    assert group_copies(project.root)["from_test"] == 0


def test_splits_that_the_data_give_are_not_changed(project: Project) -> None:
    original, copy = first_of(project, "train"), first_of(project, "test")
    say_leaks(project, (original, copy))
    rows = pd.DataFrame({"path": manifest(project).index, "split": manifest(project).to_numpy()})
    rows["label"] = rows["path"].str.partition("/")[0]
    rows.to_csv(project.root / "data" / "raw" / "labels.csv", index=False)

    with pytest.raises(DataError, match="the data give the splits of 1 copies"):
        group_copies(project.root)


def test_before_the_audit_has_run_the_error_says_so(project: Project) -> None:
    (project.root / "data" / "audit" / "leaks.parquet").unlink()

    with pytest.raises(DataError, match="graft repro audit"):
        group_copies(project.root)
