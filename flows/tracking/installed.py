"""Which packages are installed."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.utils import canonicalize_name

ENVIRONMENT = "environment.txt"
"""The artifact of an execution's run that lists all installed packages, as `name==version` lines."""


def installed_packages() -> dict[str, str]:
    """Name -> version of every installed package, sorted.

    By the names of the folders in which installers keep what they know of a package, NAME-VERSION.dist-info: to open
    each one's metadata takes half a second.
    """
    found: dict[str, str] = {}
    for place in sys.path:
        for folder in Path(place).glob("*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
            found.setdefault(canonicalize_name(name), version)
    return dict(sorted(found.items()))


def environment_text() -> str:
    """The content of `ENVIRONMENT`."""
    return "".join(f"{name}=={version}\n" for name, version in installed_packages().items())
