"""The packages of an earlier run: how they differ from those installed here, and an environment that has them."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow.entities import Run
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from graft.tasks.common.core.errors import GraftError

from ..tracking.artifacts import fetched_artifacts
from ..tracking.installed import ENVIRONMENT, installed_packages
from ..tracking.tracker import PACKAGES, Tracker

PACKAGE = "package."
"""Prefix of the tags of a run that hold packages' versions."""

GRAFT = "graft"
"""Not installed as it was: the code of the commit is."""


def recorded(tracker: Tracker, run: Run) -> dict[str, str]:
    """Package (or `python`) -> version: all that were installed, or for a run of an older version those in its tags.

    Raises:
        GraftError: MLflow has the list, but does not give it.
    """
    tags = run.data.tags
    python = {"python": tags["python"]} if "python" in tags else {}
    text = _environment_of(tracker, run.info.run_id)
    return {**(packages_of(tags) if text is None else _parsed(text)), **python}


def packages_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Name -> version, according to a run's tags."""
    return {key.removeprefix(PACKAGE): value for key, value in sorted(tags.items()) if key.startswith(PACKAGE)}


def _environment_of(tracker: Tracker, run_id: str) -> str | None:
    """The artifact of a run that lists its packages; None if it has none."""
    with fetched_artifacts(tracker, run_id, ENVIRONMENT) as folder:
        return None if folder is None else (folder / ENVIRONMENT).read_text(encoding="utf-8")


def _parsed(text: str) -> dict[str, str]:
    pairs = (line.partition("==") for line in text.splitlines() if line)
    return {name: number for name, _, number in pairs if name != GRAFT}


def differences(then: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Package (or `python`) -> its version then, and here; empty if it is not installed here."""
    now = {**installed_packages(), "python": sys.version.split()[0]}
    here = {name: now.get(canonicalize_name(name), "") for name in then}
    return {name: (then[name], here[name]) for name in sorted(then) if then[name] != here[name]}


def installable(differing: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Package -> the version to install.

    Anyone with access to MLflow can change what it records, and pip executes what it installs. So only packages that
    are installed here, or that Graft needs, are taken, and only valid versions.

    Raises:
        GraftError: a version is not valid.
    """
    left_out = {"python", *unknown(differing)}
    return {name: _checked(name, then) for name, (then, _) in differing.items() if name not in left_out}


def unknown(differing: Mapping[str, tuple[str, str]]) -> list[str]:
    """The packages that are neither installed here nor needed by Graft."""
    known = {"python", *PACKAGES, *installed_packages()}
    return [name for name in differing if name not in known]


def _checked(name: str, number: str) -> str:
    try:
        return str(Version(number))
    except InvalidVersion as error:
        raise GraftError(
            f"the version of {name} that MLflow recorded is not valid; nothing was installed",
            got=number[:200],
            allowed="a version such as 2.1.0",
            todo="use `--environment current`",
        ) from error


def notes(differing: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """What an environment with the recorded packages does not have as it was."""
    if "python" in differing:
        then, now = differing["python"]
        yield f"Python {then} cannot be installed; this is {now}"
    missing = unknown(differing)
    if missing:
        yield f"not installed, because these packages are unknown here: {', '.join(missing)}"


def make(folder: Path, packages: Mapping[str, str]) -> Path:
    """Creates a virtual environment with these packages, and otherwise those of this one; returns its Python.

    Raises:
        GraftError: it cannot be created, or a package cannot be installed.
    """
    _call([sys.executable, "-m", "venv", str(folder)], "the recorded environment cannot be created")
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    _see_packages_of_this(python)
    wanted = [f"{name}=={number}" for name, number in sorted(packages.items())]
    if wanted:
        words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        _call(words, f"the recorded versions cannot all be installed: {', '.join(wanted)}")
    return python


def _see_packages_of_this(python: Path) -> None:
    """This may itself be a virtual environment, which `--system-site-packages` would ignore."""
    own = Path(
        _call([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], "it has no packages")
    )
    here = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    lines = [f"import site; site.addsitedir({place!r})" for place in here]
    (own / "zz_graft.pth").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _call(words: list[str], problem: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise GraftError(problem, got=said, todo="make pip's index reachable, or use `--environment current`")
    return done.stdout.strip()
