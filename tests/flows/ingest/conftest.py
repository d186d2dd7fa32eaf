"""Sources of images to import."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from projects import draw, draw_classes


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
