"""The commands about runs and the models they made: results, reasons, lineage, and the choice of the champion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graft.tasks.common.core.paths import STAGES, Paths, find_root

from .options import HERE, LOOK, OPERATE, SETTINGS, AsJson, Project, examples
from .output import print_json, show

app = typer.Typer(**SETTINGS)

Why = Annotated[str, typer.Option("--why", help="The reason, for the ledger.", show_default=False)]


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        {
            "graft summary": "of this project",
            "graft summary -C ../flowers --json": "of another one, for a script",
        }
    ),
)
def summary(project: Project = HERE, as_json: AsJson = False) -> None:
    """Show the results of the last run."""
    from ..maintenance.summary import summarise
    from ..maintenance.summary_text import print_summary

    found = summarise(find_root(project))
    print_json(found) if as_json else print_summary(found)


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        {
            "graft why": "the last run",
            "graft why champion": "the run that made the champion",
            "graft why 1f0c9d2a": "a run, by its first eight digits",
        }
    ),
)
def why(
    run: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]",
            help="The id of a stage's run or a whole run in MLflow, or its first eight digits; or a version of the "
            "model (3, champion, NAME/3). The default is the last run of this project.",
            show_default=False,
        ),
    ] = "",
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Show which stages a recorded run executed, and why."""
    from ..lineage.why_text import print_explanation
    from ..tracking.answers import kept_answer

    root = find_root(project)

    def ask() -> Any:
        from ..lineage.why import explain

        return explain(root, run).to_dict()

    found = kept_answer(root, f"why {run}", _files_of_last_run(root), ask, _knows_its_images)
    print_json(found) if as_json else print_explanation(found)


def _knows_its_images(found: dict[str, Any]) -> bool:
    """Whether the listings of data/raw were in DVC's cache; `dvc fetch` may still bring them."""
    return found["images"] is None or bool(found["images"]["known"])


def _files_of_last_run(root: Path) -> list[Path]:
    """The files that tell which run is the last one, and that its explanation depends on."""
    paths = Paths(root)
    return [paths.params, root / "dvc.lock", *(paths.run(stage) for stage in STAGES)]


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        {
            "graft trace champion": "what the champion was made from",
            "graft trace graft/3 --page model.html": "the same of version 3, as a page",
            "graft trace cat/001.jpg": "which models have seen an image",
        }
    ),
)
def trace(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN|HASH|IMAGE",
            help="A model: NAME@alias, NAME/3, an alias or a number. A run: its id or the first 8 digits. A hash: of "
            "data (<md5>.dir), of an image, or a commit. An image: its path below data/raw, or a file.",
            show_default=False,
        ),
    ],
    page: Annotated[
        Path | None, typer.Option(help="Also write the answer to this HTML file.", show_default=False)
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what a model was made from, or where an image, a data set or a commit was used."""
    from ..lineage.trace import trace as find
    from ..lineage.trace_text import print_lineage

    document = find(find_root(project), what)
    if page is not None:
        from ..lineage.trace_page import write_page

        write_page(document, page)
    print_json(document) if as_json else print_lineage(document)


@app.command(
    "ledger",
    rich_help_panel=LOOK,
    epilog=examples(
        {
            "graft ledger": "as a list",
            "graft ledger --json": "for a script",
        }
    ),
)
def ledger_(project: Project = HERE, as_json: AsJson = False) -> None:
    """Show every promotion, refusal and rollback: who, when and why."""
    from ..registry.ledger_text import print_ledger
    from ..tracking.answers import kept_answer

    root = find_root(project)

    def ask() -> Any:
        from ..registry.decisions import kept_ledger

        return kept_ledger(root)

    kept = kept_answer(root, "ledger", [root / "ledger.jsonl", root / "params.yaml"], ask)
    print_json(kept) if as_json else print_ledger(kept)


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            "graft promote": "the newest version",
            'graft promote 3 --why "better on night images"': "version 3, with a reason",
            'graft promote --anyway --why "agreed on Friday"': "although the gate refused it",
        }
    ),
)
def promote(
    version: Annotated[str, typer.Argument(help="A version of the registered model, or an alias.")] = "challenger",
    why: Why = "",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Promote the version even if the gate refused it, or has not judged it.")
    ] = False,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Promote the version even if no digest shows that its files are unchanged."),
    ] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Make a version of the registered model the champion.

    The version is tried out first, and the ledger records the decision.
    """
    from ..registry.decisions import promote_version

    entry = promote_version(find_root(project), version, why, anyway=anyway, unverified=unverified)
    show(entry, as_json, f"{entry['model']} version {entry['version']} is the champion")


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            "graft rollback": "at once",
            'graft rollback --why "wrong labels in May"': "with a reason",
        }
    ),
)
def rollback(why: Why = "", project: Project = HERE, as_json: AsJson = False) -> None:
    """Make the previous champion the champion again.

    It is tried out first, and the ledger records the decision.
    """
    from ..registry.decisions import roll_back_champion

    entry = roll_back_champion(find_root(project), why)
    show(entry, as_json, f"{entry['model']} version {entry['version']} is the champion again")


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            "graft rebuild champion": "with the packages of this environment",
            "graft rebuild 3 --environment recorded": "with those of that time",
        }
    ),
)
def rebuild(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="NAME@alias, NAME/3, an alias or a number.", show_default=False)
    ],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the worktree and print where it is.")] = False,
    environment: Annotated[
        str,
        typer.Option(help="current: this environment; recorded: the package versions of that time."),
    ] = "current",
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Rebuild a registered version from its commit and data, and compare the test metrics.

    The exit code is 0 if they are equal and 3 if they are not.
    """
    from ..lineage.rebuild import rebuild as rebuild_version
    from ..lineage.rebuild_text import print_rebuilt

    document = rebuild_version(find_root(project), version, keep=keep, environment=environment)
    print_json(document) if as_json else print_rebuilt(document)
    if not document["equal"]:
        raise SystemExit(3)
