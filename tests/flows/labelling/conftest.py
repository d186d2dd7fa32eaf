"""A finished project with a pool of images, and how its labels are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from projects import Project, draw, made_once

from graft.flows.labelling.pool import add_to_pool


def fill(folder: Path, each: int = 4) -> Path:
    """Pictures in the three colours of a project, which it does not have."""
    for colour in range(3):
        for number in range(100, 100 + each):
            (folder / f"{colour}").mkdir(parents=True, exist_ok=True)
            draw(folder / f"{colour}" / f"{number}.png", colour, number)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures")


@pytest.fixture(scope="session")
def with_a_pool(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project with 36 images in its pool. Not to be changed: copy it."""

    def make(root: Path) -> None:
        project = finished.copy(root)
        add_to_pool(project.root, fill(root.with_name("pictures"), each=12))

    return Project(made_once(tmp_path_factory, "with-a-pool", make)[0])


@pytest.fixture
def pooled(with_a_pool: Project, tmp_path: Path) -> Project:
    return with_a_pool.copy(tmp_path / "pooled")


@pytest.fixture(scope="session")
def colour_of() -> Callable[[str], str]:
    """The class of a picture of the pool, by the name that it came with."""
    return lambda name: ("red", "green", "blue")[int(name.split("/")[0])]
