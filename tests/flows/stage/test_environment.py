"""`python` in dvc.yaml may be another one than the environment's, and a notebook has variables of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from projects import Project

ROOT = Path(__file__).resolve().parents[3]


def test_a_python_without_the_packages_says_what_to_do(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)

    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-m", "graft.flows.stage", "head"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "source .venv/bin/activate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_draws_whatever_backend_a_notebook_has_chosen(project: Project) -> None:
    done = project.call(sys.executable, "-m", "graft.flows.stage", "audit", MPLBACKEND="widget")

    assert "Traceback" not in done.stderr
    assert (project.root / "data" / "audit" / "map.png").is_file()
