"""The options of the studies, as a user types them."""

from __future__ import annotations

from projects import Project


def test_shares_that_are_no_numbers_are_refused(empty_project: Project) -> None:
    done = empty_project.graft_here("compare", "--shares", "0.1;0.3", check=False)

    assert done.returncode == 2
    assert "--shares cannot be read" in done.stderr
    assert "separated by commas" in done.stderr
