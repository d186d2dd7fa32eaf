"""The console script `graft`."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.common.core.errors import GraftError, ParamsError
from tasks.common.core.paths import find_root
from tasks.common.data.task import MAIN
from tasks.environment import no_proxy_for_this_machine

from ..versioning import dvc
from . import cache
from .options import HERE, SETTINGS, AsJson, Project

app = typer.Typer(
    name="graft",
    help="A transfer-learning pipeline for images: frozen backbone, new head, optional fine-tuning.",
    add_completion=False,
    pretty_exceptions_enable=False,
    **SETTINGS,
)

app.add_typer(cache.app, name="cache")

Replace = Annotated[bool, typer.Option("--replace", help="Put the images in the place of those that are there.")]
Add = Annotated[bool, typer.Option("--add", help="Add the images to those that are there.")]
Force = Annotated[bool, typer.Option("--force", help="With --replace: also delete images that DVC does not track.")]
LOOK_NEXT = (
    "graft ui            runs, models, lineage",
    "dvc metrics show    all figures",
    "graft import PATH   your own images",
)


def main() -> NoReturn:
    """Runs a command; an error that the user can mend is printed without a traceback, and the exit code is 2."""
    no_proxy_for_this_machine()
    try:
        app()
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def _show(values: dict[str, Any], as_json: bool, title: str = "") -> None:
    if as_json:
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    table = Table(title=title or None, show_header=False, title_justify="left")
    for key, value in values.items():
        table.add_row(key.replace("_", " "), escape(_text(value)))
    Console().print(table)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _how(replace: bool, add: bool) -> Any:
    if replace and add:
        raise GraftError("--replace and --add exclude each other")
    return "replace" if replace else "add" if add else "new"


@app.command()
def sample(project: Project = HERE, replace: Replace = False, force: Force = False, as_json: AsJson = False) -> None:
    """Unpack the 2,000 sample images to data/raw and put them under DVC."""
    from ..ingest.importing import import_sample

    _show(import_sample(find_root(project), _how(replace, False), force=force), as_json, "data/raw")


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder a class; train/ val/ test/ of such; or a .csv or .parquet of path, label and more.",
            show_default=False,
        ),
    ],
    project: Project = HERE,
    replace: Replace = False,
    force: Force = False,
    add: Add = False,
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link the files on the way instead of copying them.")
    ] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Also take files that links or a table's rows name outside PATH.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring your own images to data/raw and put them under DVC. PATH is only read."""
    from ..ingest.importing import import_images

    how = _how(replace, add)
    told = import_images(source, find_root(project), how, link=link, force=force, outside=allow_outside)
    _show(told, as_json, "data/raw")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def repro(context: typer.Context, project: Project = HERE) -> None:
    """Run `dvc repro` with this environment's DVC and Python, after any other DVC command of the project; further words
    go to DVC."""
    root = find_root(project)
    code = dvc.repro(root, context.args)
    if code == 0:
        _register_what_is_here(root)
    raise SystemExit(code)


def _register_what_is_here(root: Path) -> None:
    """For a package that DVC has brought from a cache; where a stage ran, its recorder does the same."""
    from tasks.common.core.paths import Paths

    from ..registry.registration import packaged, read_registration
    from ..stage.recorder import recorder_runs

    paths = Paths(root)
    if recorder_runs(root) or not packaged(paths) or read_registration(paths) is not None:
        return
    from ..registry.registering import ensure_registered
    from ..tracking.tracker import Tracker

    ensure_registered(Tracker(root))


@app.command()
def run(
    project: Project = HERE,
    unattended: Annotated[
        bool,
        typer.Option(
            "--unattended", help="As the schedule does: in a worktree of the newest commit, with promotion and push."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the flow `retrain` once, now: every stage a Prefect task, recorded in MLflow."""
    from ..runtime.servers import prefect_for_this_process, prepare_prefect

    root = find_root(project)
    prepare_prefect(root)
    from ..runtime.params import load_params

    if not unattended:
        load_params(root / "params.yaml")  # refuse what is wrong before a server is started
        from ..retrain.idle import idle_message

        idle = idle_message(root)
        if idle:
            _print_idle(root, idle, as_json)
            return
    prefect_for_this_process(root)
    from ..retrain.flow import retrain

    state: Any = retrain(str(root), unattended, return_state=True)
    result = None if state.is_cancelled() else state.result()
    if not isinstance(result, dict):
        print(json.dumps({"state": state.name, "message": state.message}, indent=2) if as_json else state.message)
        raise SystemExit(4 if state.is_cancelled() else 0)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for stage in result["stages"]:
        print(f"{stage['stage']:<11} {'ran' if stage['ran'] else 'reused':<7} {stage['seconds']:>7.1f} s")
    for row in result["checks"]:
        print(f"{row['check']:<22} {row['outcome']:<10} {row['found']}")
    print(result["sentence"])
    if not unattended:
        summary(project=root, as_json=False)


def _print_idle(root: Path, message: str, as_json: bool) -> None:
    print(json.dumps({"state": "Completed", "message": message}, indent=2) if as_json else message)
    if not as_json:
        summary(project=root, as_json=False)


Why = Annotated[str, typer.Option("--why", help="The reason, for the ledger.", show_default=False)]


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version of the registered model, or an alias.")] = "challenger",
    why: Why = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if the gate has refused it.")] = False,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Even if no digest tells that its files are those registered.")
    ] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Make a version of the registered model the champion; it is tried out first, and written into the ledger."""
    from ..registry.decisions import promote_version

    entry = promote_version(find_root(project), version, why, anyway=anyway, unverified=unverified)
    _show(entry, as_json, f"{entry['model']} version {entry['version']} is the champion")


@app.command()
def rollback(why: Why = "", project: Project = HERE, as_json: AsJson = False) -> None:
    """Make the previous champion the champion again; it is tried out first, and written into the ledger."""
    from ..registry.decisions import roll_back_champion

    entry = roll_back_champion(find_root(project), why)
    _show(entry, as_json, f"{entry['model']} version {entry['version']} is the champion again")


@app.command("ledger")
def ledger_(project: Project = HERE, as_json: AsJson = False) -> None:
    """Show every promotion, refusal and rollback: who, when and why."""
    from ..registry.decisions import kept_ledger, print_ledger

    kept = kept_ledger(find_root(project))
    if as_json:
        print(json.dumps(kept, indent=2, ensure_ascii=False))
    else:
        print_ledger(kept)


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help='When to run: minute hour day month weekday, as in "0 2 * * *".')],
    timezone: Annotated[str, typer.Option(help="An IANA time zone.")] = "UTC",
    name: Annotated[str, typer.Option(help="The deployment's name.")] = "scheduled",
    port: Annotated[int, typer.Option(help="Of the Prefect server to start if PREFECT_API_URL names none.")] = 4200,
    project: Project = HERE,
) -> None:
    """Serve the flow `retrain` on a schedule, until the process is ended."""
    from ..retrain.schedule import serve as serve_flow

    serve_flow(find_root(project), cron, timezone, name, port)


@app.command()
def ui(
    project: Project = HERE,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's pages.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Of Prefect's pages.")] = 4200,
) -> None:
    """Start MLflow's and Prefect's pages and print their addresses; Ctrl-C ends both."""
    import signal
    import threading

    from ..runtime.login import login_hint
    from ..runtime.servers import mlflow_server, prefect_server, prepare_prefect
    from ..tracking.sqlite_store import ensure_store
    from ..tracking.store import tracking_uri

    root = find_root(project)
    ensure_store(root)
    prepare_prefect(root)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits to ignore it
    uri = tracking_uri(root)
    pages = nullcontext(uri) if uri.startswith("http") else mlflow_server(root, uri, mlflow_port)
    with pages as mlflow_address, prefect_server(root, prefect_port) as prefect_address:
        print(f"MLflow:  {mlflow_address}", flush=True)
        print(f"Prefect: {prefect_address}\n{login_hint(root)}\nCtrl-C ends both", flush=True)
        try:
            ended.wait()
        except KeyboardInterrupt:
            print()


@app.command()
def summary(project: Project = HERE, as_json: AsJson = False) -> None:
    """Show what the last run gave."""
    from ..maintenance.summary import summarise

    root = find_root(project)
    found = summarise(root)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    _print_summary(found)


def _print_summary(found: dict[str, Any]) -> None:
    table = Table(show_header=False, title="Graft", title_justify="left")
    main = MAIN[found["task"]]
    value, low, high = (main.text(found[key]) for key in main.keys)
    table.add_row(f"test {main.title}", f"{value}  ({low} to {high}, {found['test_images']:,} images)")
    table.add_row("images", f"{found['images']:,}  ({found['rejected']:,} files rejected)")
    if "classes" in found:
        table.add_row("classes", f"{found['classes']:,}")
    else:
        table.add_row("numbers", f"{found['target_min']:g} to {found['target_max']:g}")
    table.add_row("audit", ", ".join(found["audit"]) or "nothing to look at")
    table.add_row("chosen", found["candidate"])
    table.add_row("fine-tuning", escape(found["finetune"]))
    for stage, seconds in found["seconds"].items():
        table.add_row(stage, f"{seconds:.1f} s")
    table.add_row("model", escape("\n".join(part for part in (found["model"], found["model_note"]) if part)))
    table.add_row(
        "look next",
        "\n".join([found["report"], *LOOK_NEXT]),
    )
    Console().print(table)


@app.command()
def status(project: Project = HERE, as_json: AsJson = False) -> None:
    """Show what would run, and because of what; runs nothing."""
    from ..status.pending import pending_here

    changes = pending_here(find_root(project))
    if as_json:
        print(json.dumps(changes.to_dict(), indent=2, ensure_ascii=False))
        return
    from ..status.pending_text import print_changes

    print_changes(changes)


@app.command()
def why(
    run: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]",
            help="A run's id in MLflow or its first eight digits, of a stage or a whole run; or a version of the model "
            "(3, champion, NAME/3). By default the last run of this project.",
            show_default=False,
        ),
    ] = "",
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what a recorded run did, stage by stage, and because of what."""
    from ..lineage.why import explain
    from ..lineage.why_text import print_explanation

    found = explain(find_root(project), run)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    print_explanation(found)


@app.command()
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Names of Keras or timm: one is shown whole. With --all, a part of a name."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Search all of timm for NAME.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure images a second here: of NAMEs, or of what has its weights here.")
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Every column, however long the lines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Show the networks of the Keras table, any network of timm, and what is here of them. Needs no project."""
    from ..backbones import table as models
    from ..backbones import table_text
    from ..runtime.locations import place_of

    place, asked = place_of(project), names or []
    if everything:
        if measure or len(asked) > 1:
            raise GraftError(
                "`--all` takes one NAME at most, and not together with `--measure`",
                got=" ".join([*asked, *(["--measure"] if measure else [])]),
                allowed="a part of a name, or nothing",
                todo="search for one part of a name, then measure what was found: graft models NAME --measure",
            )
        found = models.search(asked[0] if asked else "", place)
    else:
        if measure:
            models.measure(asked, place)
        if len(asked) == 1 and not (measure or as_markdown):
            whole = models.describe(asked[0], place)
            print(json.dumps(whole, indent=2, ensure_ascii=False)) if as_json else table_text.print_network(whole)
            return
        found = models.rows_of(asked, place)
    columns = table_text.FOUND if everything else table_text.TABLE
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif as_markdown:
        print(table_text.markdown(columns, found))
    else:
        table_text.print_table(columns, found, wide=wide)
        if not asked:
            print("\n".join(["", *table_text.CAPTION]))


@app.command()
def classify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Pictures, or folders of them.")],
    backbone: Annotated[
        str | None, typer.Option(help="A name of Keras or timm; by default the project's, or tf_efficientnet_lite0.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="As `features.weights`; by default the project's, or auto.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels a picture.")] = 5,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Say what is in pictures, by a network's own classifier (ImageNet); exit code 2 if one cannot be read."""
    from ..backbones.classify import classifier_for, files_of
    from ..runtime.locations import place_of

    files = files_of(paths)
    seen = []
    for found in classifier_for(backbone, weights, place_of(project)).look(files, top):
        seen.append(found)
        if found.error:
            print(f"error: {found.file}: {found.error}", file=sys.stderr, flush=True)
        elif not as_json:
            print(found.file)
            for _, label, probability in found.guesses:
                print(f"  {probability:6.1%}  {label}", flush=True)
    if as_json:
        print(json.dumps([found.row() for found in seen], indent=2, ensure_ascii=False))
    if any(found.error for found in seen):
        raise SystemExit(2)


@app.command()
def rank(
    backbones: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BACKBONE]...",
            help="Names of Keras or timm; by default all whose weights are on this machine.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of the named backbones: auto, package, hub, keras or random.", show_default=False),
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare backbones on your images: accuracy on validation, speed, size. Changes nothing but the list of images."""
    from ..studies.rank import rank_backbones
    from ..studies.rank_text import print_ranking

    found = rank_backbones(find_root(project), backbones or [], weights)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    print_ranking(found)


@app.command()
def compare(
    methods: Annotated[
        str, typer.Option(help="Some of head, last_stage, all, scratch.")
    ] = "head,last_stage,all,scratch",
    shares: Annotated[str, typer.Option(help="Of the training images.")] = "0.1,0.3,1",
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 3,
    budget_minutes: Annotated[
        float | None, typer.Option(help="Leave out what would take longer.", show_default=False)
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="A Markdown file to write the result to as well.", show_default=False),
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare a frozen backbone, partial and full fine-tuning and learning from scratch on your images."""
    from ..studies.compare import compare_methods
    from ..studies.compare_text import print_comparison

    found = compare_methods(
        find_root(project), _words(methods), _numbers("--shares", shares), seeds, budget_minutes, page
    )
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    print_comparison(found)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise ParamsError(option, got=text, allowed="numbers with commas between", todo="e.g. 0.1,0.3,1") from None


@app.command()
def drift(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="A folder of images, or a .csv or .parquet of their paths; by default the project's images that have "
            "come since the model was made.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="An alias or a version of the registered model.")] = "champion",
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare today's images with those that the model was trained on; exit code 0 if they are alike, 3 if not."""
    from ..studies.drift import check_drift
    from ..studies.drift_text import print_drift

    report = check_drift(find_root(project), source, model)
    if as_json:
        print(json.dumps(report.document, indent=2, ensure_ascii=False))
    else:
        print_drift(report.document)
    if report.verdict == "drift":
        raise SystemExit(3)


@app.command()
def trace(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN|HASH|IMAGE",
            help="NAME@alias, NAME/3, an alias or a number; a run's id or its first 8 digits; a hash of data "
            "(<md5>.dir), of an image, or a commit; an image's path below data/raw, or a file.",
            show_default=False,
        ),
    ],
    page: Annotated[
        Path | None, typer.Option(help="An HTML file to write the answer to as well.", show_default=False)
    ] = None,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what a model was made of; or which models an image, data or a commit went into, and in which role."""
    from ..lineage.trace import trace as find
    from ..lineage.trace_text import print_lineage

    document = find(find_root(project), what)
    if page is not None:
        from ..lineage.trace_page import write_page

        write_page(document, page)
    print(json.dumps(document, indent=2, ensure_ascii=False)) if as_json else print_lineage(document)


@app.command()
def rebuild(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="NAME@alias, NAME/3, an alias or a number.", show_default=False)
    ],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the worktree, and print its path.")] = False,
    environment: Annotated[
        str,
        typer.Option(help="current: this environment; recorded: with recorded versions of packages that differ."),
    ] = "current",
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Rebuild a registered version from its commit and data, and compare; exit code 0 if the test metrics are equal,
    3 if not."""
    from ..lineage.rebuild import rebuild as rebuild_version
    from ..lineage.rebuild_text import print_rebuilt

    document = rebuild_version(find_root(project), version, keep=keep, environment=environment)
    print(json.dumps(document, indent=2, ensure_ascii=False)) if as_json else print_rebuilt(document)
    if not document["equal"]:
        raise SystemExit(3)


@app.command()
def params(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema for editors.")] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Check params.yaml and show every parameter with its value and meaning."""
    from ..runtime.params import json_schema, load_params

    if schema:
        print(json.dumps(json_schema(), indent=2))
        return
    sections = load_params(find_root(project) / "params.yaml").sections()
    if as_json:
        print(json.dumps({name: section.model_dump() for name, section in sections.items()}, indent=2))
        return
    table = Table("parameter", "value", "meaning")
    for name, section in sections.items():
        for key, field in type(section).model_fields.items():
            meaning = " ".join((field.description or "").split())
            table.add_row(f"{name}.{key}", escape(str(getattr(section, key))), escape(meaning))
    Console().print(table)


@app.command()
def doctor(project: Project = HERE, as_json: AsJson = False) -> None:
    """Check the environment and the project, and say what is missing; exit code 1 if something is."""
    from dataclasses import asdict

    from ..maintenance.doctor import examine

    findings = examine(find_root(project))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.state:<5} {finding.check:<10} {finding.found}")
            if finding.todo:
                print(f"{'':<16} -> {finding.todo}")
    if any(finding.state == "fail" for finding in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
