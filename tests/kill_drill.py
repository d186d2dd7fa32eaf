"""kill -9 at random moments of every command, and promotions at the same moment. `make kills`.

After every kill the next command must complete and give the same metrics, and nothing may be there twice. After every
pair of promotions the ledger, the aliases and MLflow's tags must agree. Prints a table; the exit code is 1 if a check
failed.

    python tests/kill_drill.py [--folder FOLDER] [--kills 100] [--pairs 60] [--seed 0] [--only COMMAND]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from projects import Project, draw_classes, make_project, wait_for

from graft.flows.registry import decisions, ledger, promotion
from graft.flows.registry.registering import PACKAGE
from graft.flows.stage.recorder import recorder_runs
from graft.tasks.common.core.paths import STAGES

TIMES = ("seconds", "startup_seconds", "images_per_second", "cache_hits", "cache_misses")
"""Metrics that differ between two equal runs."""

SHARES = {"init": 0.15, "store": 0.15, "import": 0.15, "promote": 0.15, "repro": 0.4}
"""Share of the kills of each command."""

QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

PROMOTER = """
import sys
from pathlib import Path
from graft.flows.registry.decisions import promote_version
from graft.tasks.common.core.errors import GraftError

print("ready", flush=True)
for line in sys.stdin:
    try:
        promote_version(Path(sys.argv[1]), line.strip(), "drill", anyway=True)
        print("promoted", flush=True)
    except GraftError as error:
        print("champion" if "is the champion already" in str(error) else error, flush=True)
"""


@dataclass
class Tally:
    """What was done to one command, and what was wrong afterwards.

    Attributes:
        done: the kills, or the pairs of promotions.
        early: runs that had ended before they were to be killed.
    """

    command: str
    done: int = 0
    early: int = 0
    wrong: list[str] = field(default_factory=list)

    def require(self, so: object, what: str) -> None:
        if not so:
            self.wrong.append(what)

    def __str__(self) -> str:
        early = f", {self.early} had ended before" if self.early else ""
        return "\n  ".join([f"{self.command:<20} {self.done:>4}{early}; {len(self.wrong)} wrong", *self.wrong])


# Killing


def start(project: Project, *words: str) -> subprocess.Popen[bytes]:
    """A command of Graft's modules in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=project.root,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_at(process: subprocess.Popen[Any], seconds: float, chance: random.Random) -> bool:
    """Kills the whole group, its leader, or any one of its processes after so long; False if it had ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    leader = psutil.Process(process.pid)
    victims = [leader, *leader.children(recursive=True)]
    if chance.random() < 0.5:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(victims).kill()
    process.wait()
    return True


def duration(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def count(tally: Tally, killed: bool) -> None:
    tally.done += killed
    tally.early += not killed


# repro


def kill_repro(project: Project, kills: int, chance: random.Random) -> Tally:
    """`graft repro --force` of one stage after another in a finished project."""
    tally, before = Tally("repro killed"), results(project)
    longest: dict[str, float] = {}
    for stage in itertools.cycle(STAGES):
        words = ("graft.flows.cli", "repro", "--force", "--single-item", stage)
        if stage not in longest:
            longest[stage] = duration(start(project, *words).wait)
        count(tally, kill_at(start(project, *words), chance.uniform(0.3, 1) * longest[stage], chance))
        done = project.graft("repro", check=False)
        tally.require(done.returncode == 0, f"the next run fails: {done.stderr[-500:]}")
        wait_for(lambda: not recorder_runs(project.root), seconds=120)
        tally.require(results(project) == before, "the next run gives other results")
        tally.wrong.extend(doubled(project))
        if tally.done == kills:
            break
    return tally


def results(project: Project) -> dict[str, Any]:
    """The metrics that are not times, and the hashes of what every run must write with the same bytes."""
    metrics = {
        stage: {key: value for key, value in project.json(f"metrics/{stage}.json").items() if key not in TIMES}
        for stage in STAGES
    }
    kept = ("data/manifest", "data/features", "models/head", "report")
    return {**metrics, "hashes": {out: project.lock()[out] for out in kept}}


def doubled(project: Project) -> Iterator[str]:
    """What is there twice, or half."""
    packages = [one.tags.get(PACKAGE) for one in project.mlflow().search_model_versions("name = 'graft'")]
    if len(packages) != len(set(packages)):
        yield f"a package has several versions: {packages}"
    running = [run.info.run_name for run in project.runs() if run.info.status == "RUNNING"]
    if running:
        yield f"runs stay RUNNING: {running}"
    parts = [str(file) for top in ("data", "models", "report") for file in (project.root / top).glob(".*.part")]
    if parts:
        yield f"left behind: {parts}"


# init


def kill_init(folder: Path, kills: int, chance: random.Random) -> Tally:
    """`graft init` in an empty folder."""
    tally, words, whole = Tally("init killed"), ("graft.flows.cli", "init"), Project(folder / "whole")
    whole.root.mkdir(parents=True)
    longest = duration(start(whole, *words).wait)
    while tally.done < kills:
        one = Project(folder / str(tally.done + tally.early))
        one.root.mkdir()
        moment = chance.uniform(0.3 * longest, longest)  # before, it only imports
        count(tally, kill_at(start(one, *words), moment, chance))
        done = one.graft("init", check=False)
        tally.require(done.returncode == 0, f"the next init fails: {done.stderr[-500:]}")
        tally.require(beside_git(one) == beside_git(whole), "the next init gives other files")
        tally.require(one.call("git", "status", check=False).returncode == 0, "it is no repository")
    return tally


def beside_git(project: Project) -> dict[str, bytes]:
    """The files that are not git's own."""
    return {name: content for name, content in files_of(project.root).items() if not name.startswith(".git/")}


# MLflow's store


def kill_store(folder: Path, kills: int, chance: random.Random) -> Tally:
    """The creation of MLflow's database."""
    tally, whole = Tally("store killed"), Project(folder / "whole")
    whole.root.mkdir(parents=True)
    longest = duration(start(whole, "graft.flows.tracking.create_store").wait)
    while tally.done < kills:
        one = Project(folder / str(tally.done + tally.early))
        one.root.mkdir()
        moment = chance.uniform(0.3 * longest, longest)  # before, it only imports
        count(tally, kill_at(start(one, "graft.flows.tracking.create_store"), moment, chance))
        code = start(one, "graft.flows.tracking.create_store").wait()
        tally.require(code == 0, f"the next creation ends with {code}")
        tally.require(one.mlflow().search_experiments(), "the store does not answer")
    return tally


# import


def kill_import(project: Project, source: Path, kills: int, chance: random.Random) -> Tally:
    """`graft import --replace` of the same images."""
    tally, words = Tally("import killed"), ("graft.flows.cli", "import", str(source), "--replace")
    longest = duration(start(project, *words).wait)
    before = files_of(project.root / "data" / "raw")
    while tally.done < kills:
        count(tally, kill_at(start(project, *words), chance.uniform(0.2 * longest, longest), chance))
        code = start(project, *words).wait()
        tally.require(code == 0, f"the next import ends with {code}")
        tally.require(files_of(project.root / "data" / "raw") == before, "data/raw is not what was imported")
        tally.require(not list((project.root / "data").glob(".*.part")), "something is left behind")
    return tally


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# Promotions


@contextlib.contextmanager
def promoter(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A process that promotes the versions that it reads, one a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROMOTER, str(project.root)],
        env=project.environment(**QUIET),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert reply(process) == "ready"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], version: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{version}\n")
    process.stdin.flush()


def reply(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill_promote(project: Project, kills: int, chance: random.Random) -> Tally:
    """A promotion of a project with two versions, from the moment at which it begins."""
    tally = Tally("promote killed")
    with promoter(project) as process:
        longest = max(duration(lambda one=one: (ask(process, one), reply(process))) for one in "21")  # type: ignore[misc]
    while tally.done < kills:
        with promoter(project) as process:
            ask(process, other_than_champion(project))
            count(tally, kill_at(process, chance.uniform(0, longest), chance))
        decisions.promote_version(project.root, other_than_champion(project), "next", anyway=True)
        tally.wrong.extend(disagreements(project))
    return tally


def other_than_champion(project: Project) -> str:
    """Once a promotion that was killed is undone."""
    tracker, name = decisions._registry(project.root)
    with ledger.locked(tracker, name):
        promotion.settle(tracker, name)
    return "1" if champion(project) == "2" else "2"


def champion(project: Project) -> str:
    return str(project.mlflow().get_model_version_by_alias("graft", "champion").version)


def promote_at_once(project: Project, pairs: int) -> Tally:
    """Two processes that promote at the same moment: each pair the same version, or one each."""
    tally = Tally("pairs of promotions")
    with promoter(project) as one, promoter(project) as two:
        for pair in range(pairs):
            for process, version in zip((one, two), ("12", "21", "11", "22")[pair % 4], strict=True):
                ask(process, version)
            for said in (reply(one), reply(two)):
                tally.require(said in ("promoted", "champion"), said)
            tally.done += 1
            tally.wrong.extend(disagreements(project))
    return tally


def disagreements(project: Project) -> Iterator[str]:
    """Whether the ledger's file, the aliases and MLflow's tags tell the same."""
    client, kept = project.mlflow(), ledger.read(project.root)
    if ledger.champion_of(kept) != champion(project):
        yield f"the ledger's champion is {ledger.champion_of(kept)}, the alias {champion(project)}"
    tagged = {
        key.removeprefix(ledger.TAG)
        for version in client.search_model_versions("name = 'graft'")
        for key in version.tags
        if key.startswith(ledger.TAG)
    }
    if tagged != {entry.id for entry in kept}:
        yield f"MLflow has {len(tagged)} entries, the file {len(kept)}"
    if [entry.number for entry in kept] != list(range(1, len(kept) + 1)):
        yield f"the entries are numbered {[entry.number for entry in kept]}"
    if promotion.PENDING in client.get_registered_model("graft").tags:
        yield "a promotion is half done"
    for earlier, later in itertools.pairwise(kept):
        if later.previous != earlier.version:
            yield f"entry {later.number} follows version {earlier.version} and names {later.previous}"


def rerun_with_another_head(project: Project) -> Project:
    """The project with a second version."""
    project.set("head", l2_max=0.5)
    project.graft("repro")
    wait_for(lambda: not recorder_runs(project.root), seconds=120)
    return project


def finished_project(root: Path, source: Path) -> Project:
    project = make_project(root)
    project.graft("import", str(source))
    project.graft("repro")
    wait_for(lambda: not recorder_runs(project.root), seconds=120)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "first run")
    return project


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SHARES)
    asked = parser.parse_args()
    os.environ |= QUIET
    with contextlib.ExitStack() as kept:
        base = asked.folder or Path(kept.enter_context(tempfile.TemporaryDirectory()))
        wrong = drill(base, asked.kills, asked.pairs, random.Random(asked.seed), asked.only)
    return 1 if wrong else 0


def drill(base: Path, kills: int, pairs: int, chance: random.Random, only: str | None) -> int:
    """The number of checks that failed."""
    wrong = 0
    for command in [only] if only else SHARES:
        for tally in PARTS[command](base, round(SHARES[command] * kills), pairs, chance):
            wrong += len(tally.wrong)
            print(tally, flush=True)
    return wrong


def init_part(base: Path, kills: int, _pairs: int, chance: random.Random) -> Iterator[Tally]:
    yield kill_init(base / "inits", kills, chance)


def store_part(base: Path, kills: int, _pairs: int, chance: random.Random) -> Iterator[Tally]:
    yield kill_store(base / "stores", kills, chance)


def import_part(base: Path, kills: int, _pairs: int, chance: random.Random) -> Iterator[Tally]:
    source, project = draw_classes(base / "source"), make_project(base / "imported")
    project.graft("import", str(source))
    yield kill_import(project, source, kills, chance)


def promote_part(base: Path, kills: int, pairs: int, chance: random.Random) -> Iterator[Tally]:
    two = rerun_with_another_head(finished_project(base / "two", draw_classes(base / "pictures")))
    yield kill_promote(two, kills, chance)
    yield promote_at_once(two, pairs)


def repro_part(base: Path, kills: int, _pairs: int, chance: random.Random) -> Iterator[Tally]:
    yield kill_repro(finished_project(base / "project", draw_classes(base / "images")), kills, chance)


PARTS = {"init": init_part, "store": store_part, "import": import_part, "promote": promote_part, "repro": repro_part}


if __name__ == "__main__":
    sys.exit(main())
