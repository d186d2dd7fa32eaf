"""The packages of an earlier run: in which they differ from those here, and an environment that has them."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

from tasks.common.core.errors import GraftError

from ..tracking.tracker import PACKAGES

PACKAGE = "package."
"""Before a package's name: the tag of a run that holds its version."""


def differences(tags: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Package (or `python`) -> its version in a run's tags, and here; empty if it is not here."""
    then = packages_of(tags)
    now = {name: _version(name) for name in then}
    if "python" in tags:
        then["python"], now["python"] = tags["python"], sys.version.split()[0]
    return {name: (then[name], now[name]) for name in sorted(then) if then[name] != now[name]}


def packages_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Name -> version, as a run's tags tell them."""
    return {key.removeprefix(PACKAGE): value for key, value in sorted(tags.items()) if key.startswith(PACKAGE)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def installable(differing: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Package -> the version to install.

    Anyone who reaches MLflow can write tags, and pip runs what it installs: only packages that Graft records are taken,
    and only versions.

    Raises:
        GraftError: a tag names something else.
    """
    return {name: _checked(name, then) for name, (then, _) in differing.items() if name != "python"}


def _checked(name: str, number: str) -> str:
    if name not in PACKAGES:
        raise GraftError(
            f"the run's tag `{PACKAGE}{name}` names a package that Graft does not record; nothing was installed",
            got=name,
            allowed=", ".join(PACKAGES),
            todo="delete the tag in MLflow, or use `--environment current`",
        )
    try:
        return str(Version(number))
    except InvalidVersion as error:
        raise GraftError(
            f"the run's tag `{PACKAGE}{name}` is no version; nothing was installed",
            got=number[:200],
            allowed="a version such as 2.1.0",
            todo="correct the tag in MLflow, or use `--environment current`",
        ) from error


def make(folder: Path, packages: Mapping[str, str]) -> Path:
    """A virtual environment that has these packages, and of all others those of this one; returns its Python.

    Raises:
        GraftError: it cannot be made, or a package cannot be installed.
    """
    _call([sys.executable, "-m", "venv", str(folder)], "the recorded environment cannot be made")
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    _see_packages_of_this(python)
    wanted = [f"{name}=={number}" for name, number in sorted(packages.items())]
    if wanted:
        words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        _call(words, f"not all packages can be installed as they were: {', '.join(wanted)}")
    return python


def _see_packages_of_this(python: Path) -> None:
    """This may itself be a virtual environment, of which `--system-site-packages` would see nothing."""
    own = Path(
        _call([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], "it has no packages")
    )
    here = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    lines = [f"import site; site.addsitedir({place!r})" for place in here]
    (own / "zz_graft.pth").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _call(words: list[str], trouble: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise GraftError(trouble, got=said, todo="make pip's index reachable, or use `--environment current`")
    return done.stdout.strip()
