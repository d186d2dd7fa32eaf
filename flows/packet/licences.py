"""Licences as published forms want them: SPDX expressions where a name is one, otherwise the words."""

from __future__ import annotations

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

Choice = dict[str, object]


def spdx(licence: str) -> str:
    """The SPDX expression of a licence; empty if it is none."""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        return ""


def choices(licence: str) -> list[Choice]:
    """A licence in CycloneDX; an empty list if it is not known."""
    if not licence or licence in ("unknown", "not stated"):
        return []
    expression = spdx(licence)
    if not expression:
        return [{"license": {"name": licence}}]
    single = not {" ", "("} & set(expression) and not expression.startswith("LicenseRef-")
    return [{"license": {"id": expression}}] if single else [{"expression": expression}]
