"""What `graft rebuild` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def print_rebuilt(document: Mapping[str, Any]) -> None:
    """Metrics and files, then and now, and the conclusion."""
    print("\n".join(_lines(document)))


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"{document['name']} version {document['version']}, rebuilt in {document['seconds']:.0f} s"
    yield f"{'commit':<14}{document['commit']}"
    yield f"{'images':<14}{document['data']}"
    packages = [
        f"{name} {of['then']} then, {of['now'] or 'not installed'} here" for name, of in document["packages"].items()
    ]
    yield f"{'environment':<14}{document['environment']}; {', '.join(packages) or 'the recorded packages'}"
    yield from (f"{'note':<14}{note}" for note in document["notes"])
    yield from ("", f"{'test':<28}{'then':>14}{'now':>14}{'difference':>14}")
    for key, of in document["metrics"].items():
        cells = (_number(of[column]) for column in ("then", "now", "difference"))
        yield f"{key.replace('_', ' '):<28}{''.join(f'{cell:>14}' for cell in cells)}"
    yield ""
    yield from (f"{name:<28}{_file(of)}" for name, of in document["files"].items())
    other = [path for path, same in document["outputs"].items() if not same]
    yield f"{'outputs of stages':<28}{'all identical' if not other else 'not identical: ' + ', '.join(other)}"
    yield ""
    if document["worktree"]:
        yield f"kept          {document['worktree']}"
    yield "The test metrics are equal." if document["equal"] else "The test metrics are not equal."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _file(of: Mapping[str, Any]) -> str:
    if of["identical"]:
        return "identical"
    return of.get("note") or f"differs by {of['difference']:.3g} at most, in {of['in']}"
