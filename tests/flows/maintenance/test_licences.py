"""`graft licences`: what the packages that Graft needs ask of those who pass them on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from projects import ROOT

from graft.flows.maintenance.licences import STATED, Licence, kind_of, licence_of, licences, needed

PAGE = ROOT / "docs" / "explanation" / "security.md"


@pytest.fixture(scope="module")
def core() -> list[Licence]:
    return licences()


def explained() -> Iterator[str]:
    """The packages in the table of licences in the documentation."""
    section = PAGE.read_text(encoding="utf-8").partition("## Licences")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE):
        yield from re.findall(r"`([^`]+)`", row)


def test_no_package_that_graft_needs_is_copyleft_or_of_an_unknown_licence(core: list[Licence]) -> None:
    assert [one for one in core if one.kind in ("copyleft", "unknown")] == []


def test_each_package_that_asks_for_more_than_a_notice_is_explained_in_the_documentation(core: list[Licence]) -> None:
    named = set(explained())
    weak = {one.package for one in core if one.kind == "weak copyleft"}
    assert weak <= named
    own = {one.package for one in core if one.kind == "proprietary" and not one.package.startswith("nvidia-")}
    assert own <= named | {"cuda-toolkit"}
    assert named - {"nvidia-*", "cuda-toolkit", "psycopg2-binary"} <= {one.package for one in core}, "no longer needed"


def test_all_requirements_of_the_project_are_listed(core: list[Licence]) -> None:
    listed = {one.package for one in core}
    assert {"graft", "torch", "dvc", "mlflow", "prefect", "timm", "albumentations"} <= listed
    assert "pytest" not in listed, "an extra is no part of the core"
    assert listed <= {one.package for one in licences(everything=True)}


def test_a_package_that_only_an_extra_of_another_needs_is_needed_too() -> None:
    assert "h2" in needed("prefect"), "prefect needs httpx[http2]"
    assert "h2" not in needed("httpx")


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("Apache Software License", "permissive"),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", "permissive"),
        ("GPL-3.0-only", "copyleft"),
        ("GNU Affero General Public License v3", "copyleft"),
        ("AGPL-3.0-or-later", "copyleft"),
        ("LGPL-2.1-only", "weak copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "weak copyleft"),
        ("Apache-2.0 OR GPL-2.0-or-later", "permissive"),
        ("EPL-2.0 OR GPL-2.0-or-later", "weak copyleft"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "weak copyleft"),
        ("MIT AND GPL-3.0-only", "copyleft"),
        ("LicenseRef-NVIDIA-Proprietary", "proprietary"),
        ("mine alone", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_licence_is_judged_by_its_mildest_alternative_and_its_strictest_part(licence: str, kind: str) -> None:
    assert kind_of(licence) == kind


def installed(folder: Path, *lines: str) -> Distribution:
    place = folder / "thing-1.0.dist-info"
    place.mkdir()
    text = "\n".join(["Metadata-Version: 2.4", "Name: Thing", "Version: 1.0", *lines])
    (place / "METADATA").write_text(text, encoding="utf-8")
    return Distribution.at(place)


@pytest.mark.parametrize(
    ("lines", "licence", "kind"),
    [
        (["License-Expression: MIT", "License: GPL"], "MIT", "permissive"),
        (["License: GPLv3", "Classifier: License :: OSI Approved :: MIT License"], "GPLv3", "copyleft"),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"], "MIT License", "permissive"),
        (["License: " + "Copyright, all of it. " * 9, "Classifier: License :: OSI Approved"], "unknown", "unknown"),
        ([], "unknown", "unknown"),
    ],
)
def test_the_licence_comes_from_what_the_package_states(
    tmp_path: Path, lines: list[str], licence: str, kind: str
) -> None:
    assert licence_of(installed(tmp_path, *lines)) == Licence("thing", "1.0", licence, kind)  # type: ignore[arg-type]


def test_packages_whose_licence_is_stated_here_do_not_state_a_clear_one_themselves() -> None:
    for name, (licence, reason) in STATED.items():
        assert name == canonicalize_name(name)
        assert kind_of(licence) != "unknown"
        assert reason


def test_the_command_lists_them_as_text_and_as_json_and_opens_no_connection() -> None:
    program = """
import socket, sys
def refuse(*arguments): raise SystemExit(f"a connection to {arguments}")
socket.socket.connect = refuse
from graft.flows.cli.main import main
main()
"""
    words = [sys.executable, "-c", program, "licences"]
    text, document = (
        subprocess.run([*words, *more], capture_output=True, text=True, check=True).stdout for more in ([], ["--json"])
    )
    rows = json.loads(document)
    assert {"package", "version", "licence", "kind", "reason"} == rows[0].keys()
    assert len(text.splitlines()) == len(rows) + 2
    assert text.splitlines()[-1].startswith(f"{len(rows)} packages: ")
