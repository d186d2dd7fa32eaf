"""deploy/lock.py: which files of a package the containers may install."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.lock import fits, lines

HASHES = {"a": "1" * 64, "b": "2" * 64, "c": "3" * 64}


def file(name: str, letter: str) -> dict[str, Any]:
    return {"url": f"https://example.org/packages/{name}", "hashes": {"sha256": HASHES[letter]}}


@pytest.mark.parametrize(
    ("wheel", "machine", "expected"),
    [
        ("thing-1.0-py3-none-any.whl", "x86_64", True),
        ("thing-1.0-py2.py3-none-any.whl", "aarch64", True),
        ("thing-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "x86_64", True),
        ("thing-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "aarch64", False),
        ("thing-1.0-cp39-abi3-manylinux_2_28_aarch64.whl", "aarch64", True),
        ("thing-1.0-cp312-abi3-manylinux_2_28_x86_64.whl", "x86_64", False),
        ("thing-1.0-cp310-cp310-manylinux_2_17_x86_64.whl", "x86_64", False),
        ("thing-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", "x86_64", False),
        ("thing-1.0-cp311-cp311-win_amd64.whl", "x86_64", False),
        ("thing-1.0-cp311-cp311-macosx_11_0_arm64.whl", "aarch64", False),
    ],
)
def test_a_wheel_fits_if_python_311_on_linux_installs_it(wheel: str, machine: str, expected: bool) -> None:
    assert fits(f"https://example.org/{wheel}", machine) is expected


def test_wheels_that_fit_are_locked_and_a_source_only_where_there_are_none() -> None:
    source, wheel = file("thing-1.0.tar.gz", "a"), file("thing-1.0-py3-none-any.whl", "b")
    foreign = file("thing-1.0-cp311-cp311-win_amd64.whl", "c")
    package = {"name": "thing", "version": "1.0", "sdist": source}
    assert "".join(lines({**package, "wheels": [wheel, foreign]})) == f"thing==1.0 \\\n    --hash=sha256:{'2' * 64}\n"
    for wheels in ({}, {"wheels": [foreign]}):
        assert "".join(lines({**package, **wheels})) == f"thing==1.0 \\\n    --hash=sha256:{'1' * 64}\n"


@pytest.mark.parametrize(
    ("marker", "start"),
    [
        ("sys_platform == 'win32'", None),
        ("sys_platform == 'linux'", "thing==1.0 \\"),
        ("platform_machine == 'aarch64'", "thing==1.0 ; platform_machine == 'aarch64' \\"),
    ],
)
def test_only_what_linux_needs_is_locked(marker: str, start: str | None) -> None:
    package = {"name": "thing", "version": "1.0", "marker": marker, "wheels": [file("thing-1.0-py3-none-any.whl", "a")]}
    assert next(iter("".join(lines(package)).splitlines()), None) == start
