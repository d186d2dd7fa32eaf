"""`graft predict` as it is typed."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

from projects import Project

RED = "data/raw/red/000.png"


def test_a_table_of_predictions(finished: Project, tmp_path: Path) -> None:
    done = finished.graft_here("predict", "data/raw", "--output", str(tmp_path / "o.csv"), "--top", "2", "--no-cache")

    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["path", "label", "score"]
    assert len(rows) == 42
    assert {row["path"].split("/")[2] == row["label"] for row in rows} == {True}
    assert done.stdout == ""


def test_an_unreadable_file_is_named_and_the_others_are_answered(finished: Project, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")

    done = finished.graft_here("predict", RED, str(tmp_path / "x.png"), "--no-cache", check=False)

    assert done.returncode == 2
    assert done.stdout.startswith(RED)
    assert f"error: {tmp_path / 'x.png'}: not an image" in done.stderr
    assert "1 of 2 files could not be read; the others are answered" in done.stderr


def test_a_package_predicts_without_a_project_and_loads_neither_dvc_nor_mlflow_nor_torch(
    finished: Project, tmp_path: Path
) -> None:
    shutil.copytree(finished.root / "models" / "package", tmp_path / "exported")
    program = (
        "import atexit, sys; sys.argv[0] = 'graft'\n"
        "atexit.register(lambda: print(sorted({'mlflow', 'dvc', 'prefect', 'torch', 'timm'} & sys.modules.keys())))\n"
        "from graft.flows.cli.main import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, "predict", str(finished.root / RED), "--model", "exported", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    answer, loaded = done.stdout.splitlines()
    assert json.loads(answer)["label"] == "red"
    assert loaded == "[]"


def test_images_are_sorted_and_explained(finished: Project, tmp_path: Path) -> None:
    words = ("--sort-into", str(tmp_path / "sorted"), "--explain", str(tmp_path / "maps"), "--no-cache")
    finished.graft_here("predict", RED, *words)

    assert (tmp_path / "sorted" / "red" / "000.png").read_bytes() == (finished.root / RED).read_bytes()
    assert (tmp_path / "maps" / RED).is_file()
