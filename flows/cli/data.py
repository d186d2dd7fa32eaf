"""The commands that bring images in: `graft sample` and `graft import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import find_root
from graft.tasks.common.core.words import NAMED, listed
from graft.tasks.common.images.shard_size import LIMITS_MB, SIZE_MB

from .options import DATA, HERE, SETTINGS, AsJson, OptionalSize, Project, Shards, examples
from .output import show

app = typer.Typer(**SETTINGS)

Replace = Annotated[bool, typer.Option("--replace", help="Replace the images that are already in data/raw.")]
Add = Annotated[bool, typer.Option("--add", help="Add the images to those that are already in data/raw.")]
Force = Annotated[bool, typer.Option("--force", help="With --replace: also delete images that DVC does not track.")]


@app.command(
    rich_help_panel=DATA,
    epilog=examples(
        {
            "graft sample": "into a project without images",
            "graft sample --replace": "instead of its images",
        }
    ),
)
def sample(project: Project = HERE, replace: Replace = False, force: Force = False, as_json: AsJson = False) -> None:
    """Unpack 2,000 sample images into data/raw and put them under DVC."""
    from ..ingest.importing import import_sample

    show(import_sample(find_root(project), _how(replace, False), force=force), as_json, "data/raw")


@app.command(
    "import",
    rich_help_panel=DATA,
    epilog=examples(
        {
            "graft import photos": "a folder with one folder for each class",
            "graft import labels.csv --add": "add the files of a table",
            "graft import photos --replace --link": "hard links instead of copies",
            "graft import photos --shards": "many images: in tar files",
        }
    ),
    cls=OptionalSize,
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder with one folder for each class, or with train/, val/ and test/ that each have these; a "
            ".csv, .tsv, .jsonl or .parquet table of paths and labels; or a .zip, .tar, .tar.gz, .tar.xz or .tar.bz2 "
            "of these.",
            show_default=False,
        ),
    ],
    project: Project = HERE,
    replace: Replace = False,
    force: Force = False,
    add: Add = False,
    shards: Shards = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the files instead of copying them.")] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Also take files outside PATH that links or a table's rows name.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be imported and what left out, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring your own images into data/raw and put them under DVC.

    PATH is only read. Folders around the images are looked through, and archives of such folders are unpacked. Exports
    of Roboflow and Hugging Face are recognised by their tables, WebDataset's tar files and Hugging Face's Parquet files
    by their content.
    """
    from ..ingest.importing import import_images, preview_images

    how, root = _how(replace, add), find_root(project)
    if dry_run:
        found = preview_images(source, root, how, force=force, outside=allow_outside, shards=shards)
    else:
        found = import_images(source, root, how, link=link, force=force, outside=allow_outside, shards=shards)
    show(found if as_json else _in_lines(found), as_json, "would be imported" if dry_run else "data/raw")


def _in_lines(found: dict[str, Any]) -> dict[str, Any]:
    """The summary with one line for each split, reason and remark."""
    lines = dict(found)
    if len(found.get("classes", ())) > NAMED:
        lines["classes"] = _counts(found["classes"])
    if "left_out" in found:
        lines["left_out"] = {why: _examples(names) for why, names in found["left_out"].items()}
    if "splits" in found:
        lines["splits"] = {split: _counts(classes) for split, classes in found["splits"].items()}
    return lines | {key: "\n".join(found[key]) for key in ("notes", "warnings") if key in found}


def _examples(left_out: dict[str, Any]) -> str:
    more = ", ..." if left_out["files"] > len(left_out["such_as"]) else ""
    return f"{left_out['files']:,} ({', '.join(left_out['such_as'])}{more})"


def _counts(classes: Any) -> Any:
    return listed(f"{name} {count:,}" for name, count in classes.items()) if isinstance(classes, dict) else classes


Size = Annotated[
    int,
    typer.Argument(metavar="[SIZE]", min=LIMITS_MB[0], max=LIMITS_MB[1], help="The largest size of a tar file, in MB."),
]


@app.command(
    rich_help_panel=DATA,
    epilog=examples({"graft shard": "tar files of up to 256 MB", "graft shard 1000": "of up to 1,000 MB"}),
)
def shard(size: Size = SIZE_MB, project: Project = HERE, as_json: AsJson = False) -> None:
    """Pack the images of data/raw into tar files, which DVC handles faster.

    Names and bytes of the images stay, and so do splits and cached features. New images get tar files of their own.
    """
    from ..ingest.converting import shard_images

    show(shard_images(find_root(project), size), as_json, "data/raw")


@app.command(rich_help_panel=DATA, epilog=examples({"graft unshard": "to see and edit the images as files"}))
def unshard(project: Project = HERE, as_json: AsJson = False) -> None:
    """Unpack the tar files of data/raw into single image files.

    Names and bytes of the images stay, and so do splits and cached features.
    """
    from ..ingest.converting import unshard_images

    show(unshard_images(find_root(project)), as_json, "data/raw")


@app.command(
    "group-copies",
    rich_help_panel=DATA,
    epilog=examples(
        {"graft group-copies": "after the audit has found leaks", "graft repro": "then train without them"}
    ),
)
def group_copies_(project: Project = HERE, as_json: AsJson = False) -> None:
    """Move near-copies of a picture into one split.

    The audit names validation and test images that are also in an earlier split. They move to that split, which
    data/pins.csv remembers; the next run is without these leaks. Splits that your data give are not changed.
    """
    from ..ingest.copies import group_copies

    show(group_copies(find_root(project)), as_json, "data/pins.csv")


def _how(replace: bool, add: bool) -> Any:
    if replace and add:
        raise GraftError(
            "--replace and --add exclude each other",
            got="both",
            allowed="one of them, or neither if data/raw is empty",
            todo="leave one of them out",
        )
    return "replace" if replace else "add" if add else "new"
