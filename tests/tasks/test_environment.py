"""What processes of one machine say to each other goes through no proxy, and what they draw goes to files."""

from __future__ import annotations

import os
from unittest import mock

import pytest

from graft.tasks.environment import draw_to_files_only, no_proxy_for_this_machine


@pytest.mark.parametrize(
    ("yours", "becomes"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "intranet.example.org, localhost"}, "intranet.example.org,localhost,127.0.0.1"),
        ({"no_proxy": ".example.org"}, ".example.org,127.0.0.1,localhost"),
    ],
)
def test_this_machine_is_added_to_the_exceptions_that_you_have_set(yours: dict[str, str], becomes: str) -> None:
    with mock.patch.dict(os.environ, yours, clear=True):
        no_proxy_for_this_machine()
        assert os.environ == {"no_proxy": becomes, "NO_PROXY": becomes}
        no_proxy_for_this_machine()
        assert os.environ["no_proxy"] == becomes


def test_no_proxy_at_all_stays_as_it_is() -> None:
    with mock.patch.dict(os.environ, {"no_proxy": "*"}, clear=True):
        no_proxy_for_this_machine()
        assert os.environ == {"no_proxy": "*"}


def test_a_plotting_backend_that_only_a_notebook_has_is_overridden() -> None:
    with mock.patch.dict(os.environ, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}):
        draw_to_files_only()
        assert os.environ["MPLBACKEND"] == "agg"
