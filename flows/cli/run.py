"""The commands that run the pipeline, and keep it running: `graft repro`, `run`, `status`, `schedule` and others."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import find_root

from .options import HERE, LOOK, OPERATE, SETTINGS, TRAIN, AsJson, Project, examples
from .output import print_json

app = typer.Typer(**SETTINGS)

PORTS = {"min": 0, "max": 65535}


@app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        {
            "graft params": "every parameter with its value",
            "graft params learning rate": "those that have to do with these words",
            "graft params head.l2_max": "one parameter",
            "graft params --schema > params.schema.json": "for your editor",
        }
    ),
)
def params(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]...",
            help="Only parameters whose names, values or meanings have all of these words, each with its default and "
            "what it takes. Needs no project.",
            show_default=False,
        ),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema for editors.")] = False,
    project: Project = HERE,
    as_json: AsJson = False,
) -> None:
    """Check params.yaml and show the value and the meaning of each parameter."""
    from ..runtime.params import json_schema
    from . import params_text

    if schema:
        print(json.dumps(json_schema(), indent=2))
    elif words:
        params_text.print_matching(words, project, as_json)
    else:
        params_text.print_every(find_root(project), as_json)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    rich_help_panel=TRAIN,
    epilog=examples(
        {
            "graft repro": "every stage whose data, code or parameters have changed",
            "graft repro head": "the stage head and those before it",
            "graft repro --force features": "even if nothing has changed",
        }
    ),
)
def repro(context: typer.Context, project: Project = HERE) -> None:
    """Run `dvc repro` with this environment's DVC and Python.

    It waits for other DVC commands of the project. Further options and arguments are passed to DVC.
    """
    from ..runtime.params import load_params
    from ..versioning import dvc, stale

    root = find_root(project)
    load_params(root / "params.yaml")  # DVC would remove a stage's outputs before the stage refuses a parameter
    _require_images(root)
    _record_code(root)
    differ, code = ("", 0) if "--dry" in context.args else stale.preprocess_again(root)
    if differ:
        typer.echo(f"preprocess had seen other images than data/raw has ({differ}): it was run again", err=True)
    code = code or dvc.repro(root, context.args)
    if code == 0:
        _register_package(root)
    raise SystemExit(code)


def _record_code(root: Path) -> None:
    from graft.tasks.code import record_code

    change = record_code(root)
    if change is not None:
        typer.echo(str(change), err=True)


def _require_images(root: Path) -> None:
    """Refuses a project that never had images, since DVC would only say that a folder is missing; one that has lost
    some, without which DVC would rewrite data/raw.dvc; and one with entries that DVC cannot hash."""
    from graft.tasks.common.core.paths import Paths

    from ..versioning.entries import refuse_what_dvc_cannot_hash
    from ..versioning.losses import require_no_loss

    raw = Paths(root).raw
    if not raw.exists() and not raw.with_suffix(".dvc").exists():
        raise GraftError("there are no images: data/raw does not exist", todo="graft import PATH, or graft sample")
    require_no_loss(root)
    refuse_what_dvc_cannot_hash(raw)


def _register_package(root: Path) -> None:
    """Registers a package that DVC restored from a cache. Where a stage ran, its recorder registers it."""
    from graft.tasks.common.core.paths import Paths

    from ..registry.registration import packaged, read_registration
    from ..stage.recorder import recorder_runs

    paths = Paths(root)
    if recorder_runs(root) or not packaged(paths) or read_registration(paths) is not None:
        return
    from ..registry.registering import ensure_registered
    from ..tracking.tracker import Tracker

    ensure_registered(Tracker(root))


@app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        {
            "graft run": "the stages that have changed, and the gate",
            "graft run --unattended": "as every night",
        }
    ),
)
def run(
    project: Project = HERE,
    unattended: Annotated[
        bool,
        typer.Option(
            "--unattended",
            help="Run as the schedule does: in a worktree of the newest commit, with promotion and push.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the flow `retrain` once, now: each stage a Prefect task, recorded in MLflow."""
    from ..runtime.servers import prefect_for_this_process, prepare_prefect

    root = find_root(project)
    prepare_prefect(root)
    from ..runtime.params import load_params

    if not unattended:
        load_params(root / "params.yaml")  # refuse wrong parameters before a server is started
        _require_images(root)
        from ..retrain.idle import idle_message

        idle = idle_message(root)
        if idle:
            _print_idle(root, idle, as_json)
            return
        from ..tracking.tracker import Tracker

        Tracker(root)  # a store that does not answer is an error now, not after all retries of the flow
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
    _print_run(result)
    if not unattended:
        _print_summary(root)


def _print_summary(root: Path) -> None:
    from ..maintenance.summary import summarise
    from ..maintenance.summary_text import print_summary

    print_summary(summarise(root))


def _print_idle(root: Path, message: str, as_json: bool) -> None:
    print(json.dumps({"state": "Completed", "message": message}, indent=2) if as_json else message)
    if not as_json:
        _print_summary(root)


def _print_run(result: dict[str, Any]) -> None:
    for stage in result["stages"]:
        print(f"{stage['stage']:<11} {'ran' if stage['ran'] else 'reused':<7} {stage['seconds']:>7.1f} s")
    for row in result["checks"]:
        print(f"{row['check']:<22} {row['outcome']:<18} {row['found']}")
    print(result["sentence"])


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        {
            "graft status": "before a run",
            "graft status --json": "for a script",
        }
    ),
)
def status(project: Project = HERE, as_json: AsJson = False) -> None:
    """Show which stages would run and why, without running anything."""
    from ..runtime.params import load_params
    from ..status.pending import pending_here

    root = find_root(project)
    load_params(root / "params.yaml")  # or a misspelt parameter would look like a change
    changes = pending_here(root)
    if as_json:
        print_json(changes.to_dict())
        return
    from ..status.pending_text import print_changes

    print_changes(changes)


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        {
            "graft ui": "MLflow on port 5000, Prefect on 4200",
            "graft ui --mlflow-port 8080": "MLflow on another port",
        }
    ),
)
def ui(
    project: Project = HERE,
    mlflow_port: Annotated[int, typer.Option(**PORTS, help="The port of the MLflow pages.")] = 5000,
    prefect_port: Annotated[int, typer.Option(**PORTS, help="The port of the Prefect pages.")] = 4200,
) -> None:
    """Start the MLflow and Prefect pages and print their addresses.

    Ctrl-C stops both. If a port is in use, the next free one is taken.
    """
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that SIGINT is ignored
    uri = tracking_uri(root)
    pages = nullcontext(uri) if uri.startswith("http") else mlflow_server(root, uri, mlflow_port)
    with pages as mlflow_address, prefect_server(root, prefect_port) as prefect_address:
        print(f"MLflow:  {mlflow_address}", flush=True)
        print(f"Prefect: {prefect_address}\n{login_hint(root)}\nCtrl-C stops both", flush=True)
        try:
            ended.wait()
        except KeyboardInterrupt:
            print()


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            'graft schedule --cron "0 2 * * *" --timezone Europe/Berlin': "every night at two",
            'graft schedule --cron "0 6 * * 1"': "on Mondays at six, UTC",
            'graft schedule --cron "0 * * * *" --drift answers': "watch new images every hour",
        }
    ),
)
def schedule(
    cron: Annotated[
        str, typer.Option(help='When to run: minute hour day month weekday, as in "0 2 * * *".', show_default=False)
    ],
    timezone: Annotated[str, typer.Option(help="An IANA time zone, such as Europe/Berlin.")] = "UTC",
    name: Annotated[str, typer.Option(help="The name of the Prefect deployment.")] = "scheduled",
    port: Annotated[
        int, typer.Option(**PORTS, help="The port of the Prefect server that is started if PREFECT_API_URL is not set.")
    ] = 4200,
    drift: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead of retraining, compare the images in this folder with those that the champion was trained "
            "on, and notify of drift.",
            show_default=False,
        ),
    ] = None,
    project: Project = HERE,
) -> None:
    """Run the flow `retrain`, or with --drift the flow `drift`, on a schedule."""

    from ..retrain.schedule import run_on_schedule

    run_on_schedule(find_root(project), cron, timezone, name, port, drift)


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            "graft doctor": "after installation, or when something fails",
            "graft doctor --json": "for a monitor",
        }
    ),
)
def doctor(project: Project = HERE, as_json: AsJson = False) -> None:
    """Check the environment and the project, and report what is missing.

    The exit code is 1 if a check fails.
    """
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


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples(
        {
            "graft licences": "of the packages that Graft needs",
            "graft licences --all --json": "of everything that is installed, for a program",
        }
    ),
)
def licences(
    everything: Annotated[
        bool, typer.Option("--all", help="All installed packages, also those that Graft does not need.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the licences of the packages that Graft needs, those that ask most of you last.

    They are read from the metadata of the installed packages, without a network.
    """
    from collections import Counter
    from dataclasses import asdict

    from ..maintenance.licences import licences

    found = licences(everything=everything)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        note = f"  ({one.reason})" if one.reason else ""
        print(f"{one.kind:<14} {f'{one.package} {one.version}':<44} {one.licence}{note}")
    print(f"\n{len(found)} packages: " + ", ".join(f"{n} {kind}" for kind, n in Counter(x.kind for x in found).items()))
