"""The list of installed packages that an execution records."""

from __future__ import annotations

from importlib.metadata import distributions

from packaging.utils import canonicalize_name

from graft.flows.tracking.installed import environment_text, installed_packages


def test_the_list_has_what_importlib_finds() -> None:
    expected: dict[str, str] = {}
    for each in distributions():
        expected.setdefault(canonicalize_name(each.name), each.version)

    assert installed_packages() == expected


def test_the_text_is_sorted_and_can_be_given_to_pip() -> None:
    lines = environment_text().splitlines()

    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    assert f"numpy=={installed_packages()['numpy']}" in lines
