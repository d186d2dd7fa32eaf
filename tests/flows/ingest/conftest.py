"""Sources of images to import."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from projects import draw, draw_classes, dvcs_messages

from graft.flows.ingest import inbox
from graft.flows.versioning import dvc


@pytest.fixture(autouse=True)
def no_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's database, which takes seconds to make, is not what these tests are about."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def dvc_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC in this process, which saves its start for each import; if it fails, a real DVC process gives the reason."""
    from dvc.cli import main

    in_a_process = dvc.dvc

    def called_here(root: Path, words: Sequence[str], doing: str) -> str:
        with contextlib.chdir(root), dvcs_messages():
            failed = main(list(words))
        return in_a_process(root, words, doing) if failed else ""

    for module in (dvc, inbox):
        monkeypatch.setattr(module, "dvc", called_here)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return draw_classes(tmp_path / "source", each=2)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "listed"
    for number in range(4):
        draw(folder / "pictures" / f"{number}.png", number % 2, number)
    file = folder / "list.csv"
    rows = {"path": [f"pictures/{n}.png" for n in range(4)], "label": ["a", "b"] * 2, "group": ["x", "y"] * 2}
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside every folder that is imported."""
    draw(tmp_path / "elsewhere" / "secret.png", 0, 1)
    return tmp_path / "elsewhere" / "secret.png"
