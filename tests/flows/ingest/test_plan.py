"""What is recognised as a source of images, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graft.flows.ingest.plan import plan_import
from graft.tasks.common.core.errors import DataError


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("path\npictures/0.png\n", "lacks the column label"),
        ("path,label\npictures/9.png,a\n", "does not exist"),
        ("path,label\npictures/0.png,a\npictures/0.png,b\n", "twice"),
        ("path,label\npictures/0.png,\n", "has no label"),
        ("path,label,split\npictures/0.png,a,night\n", "unknown split"),
        ("path,label,weight\npictures/0.png,a,-1\n", "positive number"),
        ("path,label,split\npictures/0.png,a,train\npictures/1.png,b,train\n", "split of their own"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_wrong(table: Path, rows: str, expected: str) -> None:
    table.write_text(rows, encoding="utf-8")

    with pytest.raises(DataError, match=expected):
        plan_import(table)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")

    with pytest.raises(DataError, match="neither a folder nor a table"):
        plan_import(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["../elsewhere/secret.png", "/etc/hostname", "pictures/link.png"])
def test_a_row_that_leads_out_of_the_tables_folder_is_refused_unless_allowed(
    table: Path, secret: Path, name: str
) -> None:
    (table.parent / "pictures" / "link.png").symlink_to(secret)
    table.write_text(f"path,label\npictures/0.png,a\n{name},b\n", encoding="utf-8")

    with pytest.raises(DataError, match=rf"outside its folder[\s\S]*row 2: {name}[\s\S]*--allow-outside"):
        plan_import(table)

    assert len(plan_import(table, outside=True).files) == 2


def test_a_row_of_a_fifo_is_refused(table: Path) -> None:
    os.mkfifo(table.parent / "fifo.png")
    table.write_text("path,label\nfifo.png,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a special file[\s\S]*row 1: fifo\.png"):
        plan_import(table)


def test_a_table_of_numbers_says_which_row_is_none(table: Path) -> None:
    table.write_text("path,label\npictures/0.png,1\npictures/1.png,warm\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"row 2 has a label that is not a number[\s\S]*warm"):
        plan_import(table, "regression")
