"""A server process for the tests of this folder, on a free port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project
from server_process import Served, serving


@pytest.fixture(scope="package")
def package(finished: Project) -> Path:
    return finished.root / "models" / "package"


@pytest.fixture(scope="package")
def served(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With small limits, without a key."""
    limits = ("--max-bytes", "100000", "--max-request-bytes", "300000", "--max-images", "4")
    with serving(tmp_path_factory.mktemp("served"), "--model", str(package), *limits) as server:
        yield server


@pytest.fixture
def picture(finished: Project) -> bytes:
    return (finished.root / "data" / "raw" / "red" / "003.png").read_bytes()
