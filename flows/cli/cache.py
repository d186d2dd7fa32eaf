"""The commands `graft cache ls`, `verify`, `compact` and `gc`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tasks.common.core.errors import GraftError
from tasks.common.core.paths import find_root
from tasks.common.core.progress import say

from .options import HERE, SETTINGS, AsJson, Project

app = typer.Typer(help="What the feature cache holds, whether it is sound, and how to make it smaller.", **SETTINGS)


@app.command("ls")
def list_them(project: Project = HERE, as_json: AsJson = False) -> None:
    """List what is cached: backbone, engine, images, size, when it was last used and by what."""
    from ..maintenance.feature_cache import list_cache

    root = find_root(project)
    try:
        aliases = _aliases(root)
    except GraftError as error:
        say(f"cache: which model uses what is not known: {error.what}")
        aliases = {}
    rows = [entry.row() for entry in list_cache(root, aliases)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        what = f"{row['backbone']}, {row['what']}, {row['computed_by']}, {row['dtype']}"
        size = f"{row['images']:>9,} images {row['megabytes']:>9,.1f} MB"
        print(f"{row['fingerprint'][:12]} {size}  {row['last_used']}  {what}")
        if row["used_by"]:
            print(f"{'':12} used by {', '.join(row['used_by'])}")
    if not rows:
        print("the feature cache is empty")


@app.command()
def verify(
    drop: Annotated[bool, typer.Option("--drop", help="Remove damaged segments now.")] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare every segment with its checksum; exit code 1 if one is damaged (a run computes its images again)."""
    from ..maintenance.feature_cache import verify as check

    damaged = check(find_root(project), drop=drop)
    if as_json:
        print(json.dumps(damaged, indent=2))
    else:
        for found in damaged:
            print(f"damaged: {found['segment']}: {found['reason']}{' (removed)' if drop else ''}")
        if not damaged:
            print("every segment is sound")
    if damaged:
        raise SystemExit(1)


@app.command()
def compact(project: Project = HERE, as_json: AsJson = False) -> None:
    """Merge small segments into large ones; a run does so itself where it leaves many. Features stay the same."""
    from ..maintenance.feature_cache import merge

    fewer = merge(find_root(project))
    if as_json:
        print(json.dumps(fewer, indent=2))
        return
    for fingerprint, count in fewer.items():
        print(f"{fingerprint[:12]}: {count:,} segments fewer")
    if not fewer:
        print("nothing to merge")


@app.command()
def gc(
    keep_champion: Annotated[bool, typer.Option("--keep-champion", help="Keep the champion's features too.")] = False,
    max_gb: Annotated[
        float | None,
        typer.Option("--max-gb", min=0, help="Remove only what is longest unused, to get below this size."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Remove features that data/features does not use, and the graphs that made them."""
    from ..maintenance.feature_cache import CURRENT, collect

    root = find_root(project)
    aliases = _aliases(root) if keep_champion else {}
    keep = [CURRENT, "champion"] if keep_champion else [CURRENT]
    removed = [entry.row() for entry in collect(root, aliases, keep=keep, gigabytes=max_gb, dry_run=dry_run)]
    if as_json:
        print(json.dumps(removed, indent=2))
        return
    for row in removed:
        verb = "would remove" if dry_run else "removed"
        print(f"{verb} {row['fingerprint'][:12]}: {row['images']:,} images of {row['backbone']}, {row['megabytes']} MB")
    if not removed:
        print("nothing to remove")


def _aliases(root: Path) -> dict[str, str]:
    from ..tracking.store import has_store

    if not has_store(root):
        return {}
    from ..registry.models import feature_fingerprints
    from ..runtime.params import model_name
    from ..tracking.tracker import Tracker

    return feature_fingerprints(Tracker(root), model_name(root))
