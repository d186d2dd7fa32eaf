"""The commands `graft cache ls`, `verify`, `compact` and `gc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import find_root
from graft.tasks.common.core.progress import say

from .options import HERE, SETTINGS, AsJson, Panels, Project, examples
from .output import print_json

app = typer.Typer(cls=Panels, help="List, verify, compact and clean up the feature cache.", **SETTINGS)

UNKNOWN = "unknown: the run that computed them was interrupted"
"""What is printed of features that nothing describes."""


@app.command(
    "ls",
    epilog=examples(
        {
            "graft cache ls": "as a list",
            "graft cache ls --json": "for a script",
        }
    ),
)
def list_them(project: Project = HERE, as_json: AsJson = False) -> None:
    """List the cached features: backbone, engine, images, size, last use and users."""
    from ..maintenance.feature_cache import list_cache

    root = find_root(project)
    try:
        aliases = _aliases(root)
    except GraftError as error:
        say(f"cache: which features the registered models use is not known: {error.what}")
        aliases = {}
    rows = [entry.row() for entry in list_cache(root, aliases)]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        what = ", ".join(row[key] for key in ("backbone", "what", "computed_by", "dtype") if row[key])
        size = f"{row['images']:>9,} images {row['megabytes']:>9,.1f} MB"
        print(f"{row['fingerprint'][:12]} {size}  {row['last_used']}  {what or UNKNOWN}")
        if row["used_by"]:
            print(f"{'':12} used by {', '.join(row['used_by'])}")
    if not rows:
        print("the feature cache is empty")


@app.command(
    epilog=examples(
        {
            "graft cache verify": "name damaged segments",
            "graft cache verify --drop": "and delete them",
        }
    )
)
def verify(
    drop: Annotated[bool, typer.Option("--drop", help="Delete damaged segments now.")] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare every segment of the cache with its checksum.

    The exit code is 1 if a segment is damaged. The next run recomputes its images.
    """
    from ..maintenance.feature_cache import verify as check

    damaged = check(find_root(project), drop=drop)
    if as_json:
        print_json(damaged)
    else:
        for found in damaged:
            print(f"damaged: {found['segment']}: {found['reason']}{' (deleted)' if drop else ''}")
        if not damaged:
            print("every segment is intact")
    if damaged:
        raise SystemExit(1)


@app.command(
    epilog=examples(
        {
            "graft cache compact": "merge small files",
        }
    )
)
def compact(project: Project = HERE, as_json: AsJson = False) -> None:
    """Merge small segments into large ones.

    The features stay the same. A run that leaves many small segments does this itself.
    """
    from ..maintenance.feature_cache import merge

    fewer = merge(find_root(project))
    if as_json:
        print_json(fewer)
        return
    for fingerprint, count in fewer.items():
        print(f"{fingerprint[:12]}: {count:,} fewer segments")
    if not fewer:
        print("nothing to merge")


@app.command(
    epilog=examples(
        {
            "graft cache gc --dry-run": "what would be deleted",
            "graft cache gc --keep-champion": "what neither the project nor the champion uses",
            "graft cache gc --max-gb 20": "the oldest, until 20 GB are left",
        }
    )
)
def gc(
    keep_champion: Annotated[
        bool, typer.Option("--keep-champion", help="Also keep the features of the champion.")
    ] = False,
    max_gb: Annotated[
        float | None,
        typer.Option(
            "--max-gb", min=0, help="Delete the least recently used features, only until the cache is below this size."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and delete nothing.")
    ] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Delete features that data/features does not use, and the graphs that computed them."""
    from ..maintenance.feature_cache import CURRENT, collect

    root = find_root(project)
    aliases = _aliases(root) if keep_champion else {}
    keep = [CURRENT, "champion"] if keep_champion else [CURRENT]
    removed = [entry.row() for entry in collect(root, aliases, keep=keep, gigabytes=max_gb, dry_run=dry_run)]
    if as_json:
        print_json(removed)
        return
    for row in removed:
        verb = "would delete" if dry_run else "deleted"
        print(f"{verb} {row['fingerprint'][:12]}: {row['images']:,} images of {row['backbone']}, {row['megabytes']} MB")
    if not removed:
        print("nothing to delete")


def _aliases(root: Path) -> dict[str, str]:
    from ..tracking.store import has_store

    if not has_store(root):
        return {}
    from ..registry.models import feature_fingerprints
    from ..runtime.params import model_name
    from ..tracking.tracker import Tracker

    return feature_fingerprints(Tracker(root), model_name(root))
