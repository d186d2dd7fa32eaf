"""The files of a new project. They lie in template/, under names that DVC and git do not act upon."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from graft.tasks.addresses import without_secrets
from graft.tasks.common.core.files import whole_file

FOLDER = Path(__file__).resolve().parent / "template"

SETTINGS = """\
[core]
    analytics = false
    check_update = false
"""
"""DVC's configuration of a project: DVC itself would report its use."""

KEPT: Mapping[str, str] = {
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    ".dvc/config": SETTINGS,
    "data/pins.csv": "seed,key,split\n",
    "data/labels.csv": "image_id,label,who,when,why,replaced\n",
}
"""Files that are too short for a file in template/."""

COPIED: Mapping[str, str] = {
    "data/weights/README.md": "weights.md",
    "prefect.yaml": "prefect.yaml",
    ".github/workflows/graft.yml": "workflow.yml",
    "params.yaml": "params.yaml",
    "dvc.yaml": "pipeline.yaml",
}
"""File of a project -> its text in template/."""

JOINED: Mapping[str, str] = {".gitignore": "gitignore", ".dvcignore": "dvcignore", ".gitattributes": "gitattributes"}
"""Files of lines, which a folder may have already: the missing lines are appended."""


def text_of(name: str) -> str:
    """The text of a file of a new project."""
    if name == "requirements.txt":
        return requirements()
    if name in KEPT:
        return KEPT[name]
    return (FOLDER / {**COPIED, **JOINED}[name]).read_text(encoding="utf-8")


def requirements() -> str:
    """requirements.txt: this Graft, by the address of its repository if it was installed from one.

    Never by its name alone, which may be that of another package on a public index.
    """
    installed = distribution("graft")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    if commit:
        return f"graft @ git+{without_secrets(origin['url'])}@{commit}\n"
    return (
        f"# Made with Graft {installed.version}. On a public index that name may be another package's.\n"
        f"# graft @ git+https://git.example.org/team/graft.git@v{installed.version}\n"
        f"# ./graft-{installed.version}-py3-none-any.whl\n"
    )


def add_lines(file: Path, wanted: str) -> bool:
    """Appends `wanted` to a file that lacks a line of it; whether it did. All lines: their order has a meaning."""
    before = file.read_bytes() if file.exists() else b""
    known = {line.strip() for line in before.splitlines()}
    if all(line.strip() in known for line in wanted.encode().splitlines()):
        return False
    gap = b"" if before.endswith(b"\n") or not before else b"\n"
    with whole_file(file) as part:
        part.write_bytes(before + gap + wanted.encode())
    return True
