"""Six nights of unattended retraining with real parts: a Prefect server and worker, an MLflow server, git and DVC
remotes, colleagues who push images, and a person who labels some by day. `make drill`; takes some minutes.

After every night the champion must be valid and predict, the checkout unchanged, the remotes and the ledger complete,
and no process left behind. Prints a table of the nights; the exit code is 1 if a check failed.

    python tests/drill.py [--folder FOLDER] [--images 1500] [--source CLASSES] [--backbone NAME] [--one | --labels]
        [--keep]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from hook import Hook, listening
from projects import Project, ask, free_port, made_repository, make_project, wait_for

from graft.flows.runtime.login import server_login
from graft.flows.runtime.servers import mlflow_server, prefect_server, prepare_prefect
from graft.tasks.audit.params import AuditParams
from graft.tasks.common.core.files import md5
from graft.tasks.evaluate.params import EvaluateParams
from graft.tasks.head.params import HeadParams

ROOT = Path(__file__).resolve().parent.parent

QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Settings of MLflow's clients, which must notice soon that a server is down."""

PARAMS: dict[str, dict[str, Any]] = {
    "preprocess": {"val_fraction": 0.15, "test_fraction": 0.15},
    "features": {"backbone": "tf_efficientnet_lite0", "weights": "auto"},
    "head": HeadParams().model_dump(mode="json"),
    "audit": AuditParams().model_dump(mode="json"),
    "evaluate": EvaluateParams().model_dump(mode="json"),
    "retrain": {"time_limit_minutes": 10.0, "retries": 0, "retry_seconds": 1.0, "settle_seconds": 0.0, "ask": 30},
    "gate": {"max_latency_ratio": 50.0, "margin": 0.1},
}

POOL = "graft"

UNLABELLED = 40
"""Images that come without a label."""

SMALL = 100
"""Images of a project so small that its runs take little more than the fixed costs."""


@dataclass
class Night:
    """A night and its result."""

    name: str
    state: str = ""
    seconds: float = 0.0
    outcome: str = ""
    champion: str = ""
    wrong: list[str] = field(default_factory=list)


@dataclass
class Town:
    """The project, its remotes and its servers."""

    base: Path
    project: Project
    prefect: dict[str, str]
    mlflow_port: int
    hook: Hook
    images: dict[str, list[Path]]
    worker: subprocess.Popen[bytes] | None = None
    mlflow: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    nights: list[Night] = field(default_factory=list)
    used: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return {**self.prefect, **QUIET, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow_port}"}


# Setting up


def found(base: Path, images: int, source: Path | None, prefect: dict[str, str], hook: Hook) -> Town:
    """A project under git and DVC, pushed to remotes, with so many images; more come later. They show clothes, or come
    from `source`, which has one folder per class."""
    base.mkdir(parents=True)
    project = make_project(base / "project", **PARAMS)
    if source is None:
        source = base / "sample"
        with zipfile.ZipFile(ROOT / "sample" / "fashion-mnist-2000.zip") as file:
            file.extractall(source)
    by_class = {folder.name: sorted(folder.iterdir()) for folder in sorted(source.iterdir()) if folder.is_dir()}
    each = images // len(by_class)
    for name, files in by_class.items():
        place = project.root / "data" / "raw" / name
        place.mkdir(parents=True)
        for file in files[:each]:
            shutil.copy(file, place)
    project.dvc("add", "data/raw")
    made_repository(project, base)
    return Town(base, project, prefect, free_port(), hook, by_class, used=each)


def push_images(town: Town, count: int, *, wrong: bool = False) -> None:
    """A colleague pushes new images, equally many per class; if `wrong`, labelled as the next class."""
    clone = colleague(town)
    names = list(town.images)
    for place, name in enumerate(names):
        for file in town.images[name][town.used : town.used + count // len(names)]:
            target = clone.root / "data" / "raw" / (names[(place + 1) % len(names)] if wrong else name)
            shutil.copy(file, target / f"{'wrong' if wrong else 'new'}-{file.name}")
    town.used += count // len(names)
    clone.dvc("add", "data/raw")
    clone.git("commit", "--quiet", "--all", "--message", f"{count} images")
    clone.dvc("push", "--quiet", "data/raw.dvc")
    clone.git("push", "--quiet", "origin", "main")


def colleague(town: Town) -> Project:
    """Somebody's clone, at the newest commit, with its images."""
    clone = Project(town.base / "colleague")
    if not clone.root.exists():
        subprocess.run(["git", "clone", "--quiet", str(town.base / "remote.git"), str(clone.root)], check=True)
    clone.git("pull", "--quiet", "--rebase")
    clone.dvc("pull", "--quiet", "data/raw.dvc")
    return clone


def start_mlflow(town: Town) -> None:
    """On the project's own database, at the known port."""
    town.mlflow = contextlib.ExitStack()
    store = f"sqlite:///{town.base}/mlflow.db"
    address = town.mlflow.enter_context(mlflow_server(town.base, store, town.mlflow_port))
    assert address.endswith(str(town.mlflow_port)), address


def start_worker(town: Town) -> None:
    log = (town.base / "worker.log").open("ab")
    town.worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "drill"],
        cwd=town.project.root,
        env=town.project.environment(**town.environment, PREFECT_WORKER_QUERY_SECONDS="1"),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def deploy(town: Town) -> Any:
    """By prefect.yaml, as a team does."""
    shutil.copyfile(ROOT / "prefect.yaml", town.project.root / "prefect.yaml")
    environment = {**town.environment, "GRAFT_PROJECT": str(town.project.root)}
    town.project.call(
        sys.executable, "-m", "prefect", "work-pool", "create", POOL, "--type", "process", "--overwrite", **environment
    )
    town.project.call(
        sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "nightly", "--pool", POOL, **environment
    )
    (town.project.root / "prefect.yaml").unlink()
    deployments = ask(town.prefect, lambda client: client.read_deployments())
    return next(one for one in deployments if one.name == "nightly")


# A night


def night(
    town: Town, deployment: Any, name: str, meanwhile: Callable[[Any], None] | None = None, expected: str = "Completed"
) -> Night:
    """One run, and the checks after it."""
    this = Night(name)
    town.nights.append(this)
    before = checkout(town)
    before_it = len(town.hook.got)
    ended, this.seconds = run_once(town, deployment, meanwhile)
    this.state = ended.state_name
    this.outcome = outcome_of(town, ended, before_it)
    require(this, ended.state_name == expected, f"the run ended {ended.state_name}: {ended.state.message}")
    for what, so in after(town, before):
        require(this, so, what)
    this.champion = champion_version(town)
    print(f"{this.name}: {this.state}, {this.seconds} s, {this.outcome}", *this.wrong, sep="\n  ", flush=True)
    return this


def run_once(town: Town, deployment: Any, meanwhile: Callable[[Any], None] | None = None) -> tuple[Any, float]:
    """A finished run of the deployment, and how many seconds it took."""
    began = time.time()
    run = ask(town.prefect, lambda client: client.create_flow_run_from_deployment(deployment.id))
    if meanwhile is not None:
        meanwhile(run)
    ended = wait_for(lambda: final(town, run.id), seconds=1800)
    started = ended.start_time.timestamp() if ended.start_time else began
    return ended, round(ended.end_time.timestamp() - started, 1)


def startup(town: Town) -> tuple[float, float]:
    """Seconds of the first run and of the next night of a small project: the fixed costs of a run.

    These are processes and their imports, servers, DVC, git and plots.
    """
    start_mlflow(town)
    deployment = deploy(town)
    start_worker(town)
    first, first_seconds = run_once(town, deployment)
    push_images(town, len(town.images))
    night, night_seconds = run_once(town, deployment)
    assert first.state_name == night.state_name == "Completed", (first.state.message, night.state.message)
    leave(town)
    return first_seconds, night_seconds


def leave(town: Town) -> None:
    """Ends its worker and MLflow's server."""
    if town.worker is not None:
        kill_worker(town)
    town.mlflow.close()


def require(this: Night, so: Any, what: str) -> None:
    if not so:
        this.wrong.append(what)


def final(town: Town, run_id: Any) -> Any:
    run = ask(town.prefect, lambda client: client.read_flow_run(run_id))
    return run if run.state is not None and run.state.is_final() else None


def outcome_of(town: Town, run: Any, first: int) -> str:
    """The notification, or else the message of the run."""
    notices = [notice["title"].partition(": ")[2] or notice["title"] for notice in town.hook.got[first:]]
    return "; ".join(notices) or str(run.state.message or "")


def checkout(town: Town) -> tuple[str, str]:
    return town.project.git("status", "--porcelain"), town.project.git("rev-parse", "HEAD")


def after(town: Town, before: tuple[str, str]) -> Iterator[tuple[str, Any]]:
    """The checks, and whether they hold."""
    wait_for(lambda: not strangers(town), seconds=60) if strangers(town) else None
    yield f"processes are left: {strangers(town)}", not strangers(town)
    yield "the checkout was touched", checkout(town) == before
    yield "the champion does not predict", served(town)
    yield "the repository is locked", not town.project.git("ls-remote", "origin", "refs/graft/lock")
    yield from remotes(town)
    yield from ledger(town)
    running = ask(town.prefect, lambda client: client.read_flow_runs())
    yield "a run stays Running", all(run.state_name != "Running" for run in running)


def strangers(town: Town) -> list[str]:
    """Processes in the project's folders, other than servers and the worker."""
    found = []
    known = ("mlflow server", "uvicorn", "gunicorn", "prefect server", "prefect worker", "drill.py")
    for process in psutil.process_iter(["cmdline", "cwd", "pid"]):
        words = " ".join(process.info["cmdline"] or [])
        inside = str(process.info["cwd"] or "").startswith(str(town.project.root))
        if inside and words and not any(name in words for name in known):
            found.append(f"{process.info['pid']} {words[:80]}")
    return found


PREDICT = """
import sys, mlflow, pandas as pd
from pathlib import Path
model = mlflow.pyfunc.load_model("models:/graft@champion")
print(len(model.predict(pd.DataFrame({"image": [Path(name).read_bytes() for name in sys.argv[1:]]}))))
"""


def served(town: Town) -> bool:
    """Whether a program without Graft gets predictions from the champion."""
    file = next(iter(town.images.values()))[0]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, str(file)], cwd="/", env=town.project.environment(**town.environment),
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip().endswith("1")


def remotes(town: Town) -> Iterator[tuple[str, Any]]:
    """A fresh clone gets all data of the newest commit, and has nothing to run."""
    clone = Project(town.base / "stranger")
    shutil.rmtree(clone.root, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(town.base / "remote.git"), str(clone.root)], check=True)
    pulled = clone.dvc("pull", "--quiet", check=False)
    newest = clone.git("log", "-1", "--format=%s")
    yield (
        f"`dvc pull` of {newest!r} fails: {pulled.stderr[-300:]}",
        pulled.returncode == 0 or not (clone.root / "dvc.lock").exists(),
    )
    if newest.startswith("Retrain"):
        status = json.loads(clone.dvc("status", "--json").stdout or "{}")
        yield f"the pushed result is not up to date: {status}", not status


def ledger(town: Town) -> Iterator[tuple[str, Any]]:
    """Every version has a decision; the pushed file has the entries that MLflow has, if the run ended."""
    kept = json.loads(town.project.graft("ledger", "--json", **town.environment).stdout)
    client = mlflow_client(town)
    versions = {str(one.version) for one in client.search_model_versions("name = 'graft'")}
    decided = {entry["version"] for entry in kept}
    open_versions = versions - decided
    yield f"versions without a decision: {open_versions}", not open_versions or town.nights[-1].state != "Completed"
    champion = [entry for entry in kept if entry["what"] not in ("refused", "undecided")][-1]["version"]
    yield "the ledger's champion is another", champion == champion_version(town)
    pushed = town.project.call("git", "ls-remote", "origin", "refs/heads/main").stdout.split()[0]
    lines = subprocess.run(
        ["git", "-C", str(town.base / "stranger"), "show", f"{pushed}:ledger.jsonl"], capture_output=True, text=True
    ).stdout.splitlines()
    missing = {entry["id"] for entry in kept} - {json.loads(line)["id"] for line in lines}
    yield f"the pushed ledger lacks {missing}", not missing or town.nights[-1].state != "Completed"


def mlflow_client(town: Town) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(town.environment["MLFLOW_TRACKING_URI"])


def champion_version(town: Town) -> str:
    return str(mlflow_client(town).get_model_version_by_alias("graft", "champion").version)


def when_stage_runs(town: Town, stage: str, act: Callable[[], None]) -> Callable[[Any], None]:
    """Waits for a stage's process in the worktree, then acts."""

    def wait(_: Any) -> None:
        def at_work() -> bool:
            return any(
                (process.info["cmdline"] or [])[-2:] == ["graft.flows.stage", stage]
                for process in psutil.process_iter(["cmdline"])
            )

        wait_for(at_work, seconds=300)
        act()

    return wait


def kill_worker(town: Town) -> None:
    assert town.worker is not None
    town.worker.send_signal(signal.SIGKILL)
    town.worker.wait()


def stop_mlflow(town: Town) -> None:
    town.mlflow.close()


def first_run(town: Town) -> tuple[Any, Night]:
    """Starts the servers of a town; its deployment, and its first run."""
    start_mlflow(town)
    deployment = deploy(town)
    start_worker(town)
    return deployment, night(town, deployment, "0  the first run of all")


def one_night(town: Town, small: Town) -> tuple[Any, Night]:
    """The first run of all, and a night of new images; says what share of the first the night took.

    Returns:
        The deployment, and the night.
    """
    startup_first, startup_night = startup(small)
    deployment, first = first_run(town)
    push_images(town, 20)
    one = night(town, deployment, "1  new images (20)")
    whole, own = first.seconds - startup_first, one.seconds - startup_night
    print(
        f"\na project of {SMALL} images takes {startup_first:.1f} s, its next night {startup_night:.1f} s; "
        f"beyond these, the first run took {whole:.1f} s and night 1 {own:.1f} s, {own / whole:.0%} of it\n",
        flush=True,
    )
    return deployment, one


def other_nights(town: Town, deployment: Any, champion: str) -> None:
    two = night(town, deployment, "2  nothing new")
    require(two, two.seconds <= 10, f"it took {two.seconds} s")
    require(two, two.outcome.startswith("nothing to do"), "it did not say so")
    push_images(town, 400, wrong=True)
    three = night(town, deployment, "3  a bad batch (400 images, mislabelled)")
    require(three, "was refused" in three.outcome, "it was not refused")
    require(three, three.champion == champion, "the champion changed")
    undo_last_push(town)
    push_images(town, 20)
    outage = when_stage_runs(town, "head", lambda: stop_mlflow(town))
    night_of_outage(town, deployment, outage)
    night(town, deployment, "4b the next night, MLflow is back")
    push_images(town, 20)
    night(
        town,
        deployment,
        "5  kill -9 of the worker",
        when_stage_runs(town, "audit", lambda: kill_worker(town)),
        "Crashed",
    )
    start_worker(town)
    night(town, deployment, "5b the next night, a new worker")


def nights_of_labels(town: Town, deployment: Any) -> None:
    """Images come without a label; a person labels those that the night has chosen; the next night learns from them."""
    label_of = drop_unlabelled(town)
    six = night(town, deployment, f"6  {UNLABELLED} images without a label")
    last = town.hook.got[-1]
    asked = last["facts"].get("images", 0)
    require(six, last["about"] == "labels" and 0 < asked <= PARAMS["retrain"]["ask"], f"people were not asked: {last}")
    require(six, pooled(town) == UNLABELLED, f"the pushed pool has {pooled(town)} images")
    given = label_by_day(town, label_of)
    require(six, given["new"] == asked and given["published"].endswith("pushed"), f"the labels are not pushed: {given}")
    after_day = night(town, deployment, f"6b the next night, {asked} of them have labels")
    left = UNLABELLED - asked
    require(after_day, pooled(town) == left, f"the pushed pool has {pooled(town)} images, not {left}")
    entry = json.loads(town.project.graft("ledger", "--json", **town.environment).stdout)[-1]
    require(after_day, entry["labels"] == asked, f"the ledger counts {entry['labels']} labels, not {asked}")
    brought = {name: value for name, value in entry["metrics"].items() if name.endswith("accuracy")}
    print(f"  what {asked} labels brought: {brought}", flush=True)


def drop_unlabelled(town: Town) -> dict[str, str]:
    """New images, equally many per class, into the inbox; returns md5 -> class, which only the person knows."""
    folder, label_of = Path(PARAMS["retrain"]["inbox"]) / "unlabelled", dict[str, str]()
    folder.mkdir(parents=True)
    each = UNLABELLED // len(town.images)
    for name, files in town.images.items():
        for file in files[town.used : town.used + each]:
            label_of[md5(file)] = name
            shutil.copy(file, folder / f"{len(label_of)}{file.suffix}")
    town.used += each
    return label_of


def label_by_day(town: Town, label_of: dict[str, str]) -> dict[str, Any]:
    """A person fills in the table of the night, in a clone."""
    clone, table = colleague(town), pd.read_csv(town.project.root / ".graft" / "label" / "next.csv")
    table["label"] = table["image_id"].map(label_of)
    table.to_csv(town.base / "answers.csv", index=False)
    words = ("label", "apply", str(town.base / "answers.csv"), "--by", "ann", "--commit", "--json")
    return dict(json.loads(clone.graft(*words, **town.environment).stdout))


def pooled(town: Town) -> int:
    """How many images the pool has in the clone that the checks after a night have made."""
    return len(pd.read_csv(town.base / "stranger" / "data" / "pool" / "index.csv"))


def night_of_outage(town: Town, deployment: Any, outage: Callable[[Any], None]) -> None:
    """The checks need MLflow, so it is back before them."""

    def fails(run: Any) -> None:
        outage(run)
        wait_for(lambda: final(town, run.id), seconds=600)
        start_mlflow(town)

    night(town, deployment, "4  the MLflow server goes down during the run", fails, "Failed")


def undo_last_push(town: Town) -> None:
    """A colleague removes the bad batch."""
    clone = colleague(town)
    for file in (clone.root / "data" / "raw").rglob("wrong-*"):
        file.unlink()
    clone.dvc("add", "data/raw")
    clone.git("commit", "--quiet", "--all", "--message", "the bad batch is out")
    clone.dvc("push", "--quiet", "data/raw.dvc")
    clone.git("push", "--quiet", "origin", "main")


def traced(town: Town) -> list[str]:
    """Traces and rebuilds the first champion, after all nights."""
    wrong = []
    trace = town.project.graft("trace", "graft/1", **town.environment, check=False)
    print(trace.stdout[-3000:], trace.stderr[-1000:])
    if trace.returncode:
        wrong.append("graft trace graft/1 fails")
    rebuilt = town.project.graft("rebuild", "1", **town.environment, check=False)
    print(rebuilt.stdout[-3000:], rebuilt.stderr[-1000:])
    if rebuilt.returncode:
        wrong.append("graft rebuild 1 is not equal")
    return wrong


def table(nights: list[Night]) -> str:
    rows = [["night", "state", "seconds", "champion", "message"]]
    rows += [[one.name, one.state, f"{one.seconds:.1f}", one.champion, one.outcome[:110]] for one in nights]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return "\n".join("  ".join([*(row[k].ljust(widths[k]) for k in range(4)), row[4]]) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder to work in, which is kept; its content is deleted first")
    parser.add_argument("--images", type=int, default=1500, help="in the first run; 500 more come later")
    parser.add_argument("--source", type=Path, help="a folder of so many images, by classes, instead of clothes")
    parser.add_argument("--backbone", help="another one than EfficientNet-Lite0, with random weights")
    parser.add_argument(
        "--labels", action="store_true", help="only the first run and the nights of images without labels"
    )
    parser.add_argument("--one", action="store_true", help="one night only, and its share of the time of the first run")
    parser.add_argument("--keep", action="store_true", help="leave the servers up until a key is pressed")
    options = parser.parse_args()
    base = options.folder or Path(tempfile.mkdtemp(prefix="graft-drill-"))
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    os.environ |= QUIET
    if options.backbone:
        PARAMS["features"] = {"backbone": options.backbone, "weights": "random"}
    prepare_prefect(base)
    with listening() as hook, prefect_server(base, free_port()) as address:
        PARAMS["retrain"] |= {"notify": [hook.address], "inbox": str(base / "inbox")}
        prefect = {"PREFECT_API_URL": f"{address}/api", "PREFECT_HOME": os.environ["PREFECT_HOME"]}
        prefect["PREFECT_API_AUTH_STRING"] = server_login(base)
        small = found(base / "small", SMALL, options.source, prefect, hook)
        town = found(base / "town", options.images, options.source, prefect, hook)
        try:
            if options.labels:
                nights_of_labels(town, first_run(town)[0])
            else:
                deployment, one = one_night(town, small)
                if not options.one:
                    other_nights(town, deployment, one.champion)
                    nights_of_labels(town, deployment)
            wrong = [f"{this.name}: {each}" for this in town.nights for each in this.wrong]
            wrong += [] if options.one or options.labels else traced(town)
            print("\n" + table(town.nights))
            if options.keep:
                input(f"Prefect {address}, MLflow {town.environment['MLFLOW_TRACKING_URI']}; Enter ends all\n")
        finally:
            for each in (small, town):
                leave(each)
    if not options.folder:
        shutil.rmtree(base, ignore_errors=True)
    print("\nfailed checks:\n  " + "\n  ".join(wrong) if wrong else "\nall checks passed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
