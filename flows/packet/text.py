"""What `graft packet` and `graft verify` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]

SHOWN = 10
"""Names in a list of files."""


def print_made(made: Document) -> None:
    print("\n".join(_made(made)))


def _made(made: Document) -> Iterator[str]:
    yield f"{made['name']} version {made['version']}: {made['files']:,} files, {made['bytes'] / 1e6:,.1f} MB"
    yield f"{'folder':<12}{made['folder']}"
    if made["zip"]:
        yield f"{'zip':<12}{made['zip']}"
    yield f"{'digest':<12}{made['digest']}"
    yield f"{'signature':<12}{made['signed_by'] or 'none; --sign KEY makes one'}"
    yield from (f"{'missing':<12}{name}: {why}" for name, why in made["missing"].items())
    if made["not_stated"]:
        yield f"{'not stated':<12}{', '.join(made['not_stated'])}: set them under `card` in params.yaml"


def print_verified(found: Document) -> None:
    print("\n".join(_verified(found)))


def _verified(found: Document) -> Iterator[str]:
    code, data = found["commit"][:12] or "none", found["data"] or "unknown"
    yield f"{found['model']} version {found['version']}, commit {code}, data {data}"
    for kind in ("changed", "missing", "added"):
        if found[kind]:
            yield f"{kind:<12}{_names(found[kind])}"
    yield from (f"{'fault':<12}{fault}" for fault in found["faults"])
    if not any(found[kind] for kind in ("changed", "missing", "added", "faults")):
        yield f"{'files':<12}all {found['files']:,} as they were written"
    yield f"{'signature':<12}{_signature(found['signature'])}"
    registry = found["registry"]
    yield f"{'registry':<12}{registry['state']}{': ' + registry['why'] if registry['why'] else ''}"
    if found["rebuild"] is not None:
        yield f"{'rebuild':<12}{_rebuilt(found['rebuild'])}"
    yield ""
    yield "The packet is as it was written." if found["ok"] else "The packet does not hold."


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _signature(signature: Document) -> str:
    if signature["state"] == "unsigned":
        return "unsigned: anyone may have written this packet"
    if signature["state"] == "valid" and signature["trusted"] is None:
        return f"valid, by the key {signature['key']}; whose key this is, --key FILE checks"
    if signature["state"] == "valid":
        return f"valid, by your key {signature['key']}"
    return f"{signature['state']}: {signature['why']}"


def _rebuilt(rebuilt: Document) -> str:
    same = "with identical files" if rebuilt["identical"] else "with files that are not identical"
    return (
        f"{'equal test metrics' if rebuilt['equal'] else 'other test metrics'}, {same}, in {rebuilt['seconds']:.0f} s"
    )
