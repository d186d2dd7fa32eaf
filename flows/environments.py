"""The packages of an earlier run: in which they differ from those here, and an environment that has them."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tasks.common.errors import GraftError

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
    """Package -> the version to install."""
    return {name: then for name, (then, _) in differing.items() if name != "python"}


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
