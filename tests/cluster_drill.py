"""Features on a Ray cluster without a common folder, and what happens when parts of it fail. `make cluster-drill`.

On this one machine: network namespaces for the head, two worker nodes of a core each, and a storage server. The nodes
see neither the project nor its caches nor Graft's code, and fetch images by SSH, or by HTTP that fails 5 % of reads.

Each case kills or breaks one part in the middle of a run. The run must complete or end with one clear error, no process
may be left, the next run must go on where it ended, compute nothing twice but the blocks in flight, and give the same
bytes as the local engine. Prints a table; the exit code is 1 if a check failed. Needs Linux and root.

    python tests/cluster_drill.py [--folder FOLDER] [--images 8192] [--block 512] [--size 224] [--photos FOLDER]
                                  [--rounds 3] [--only CASE...]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from far_cluster import FarCluster, describe
from machines import MARK, Lab, Machine, able, alive, measured
from PIL import Image
from projects import Project, make_project, wait_for

from graft.tasks.common.core.files import md5
from graft.tasks.common.feature_cache.segments import _index

PARAMS = {
    "features": {"backbone": "tf_efficientnet_lite0", "weights": "auto"},
    "compute": {"lease_seconds": 15.0},
}
IN_FLIGHT = 4
"""Blocks: two a node, one that is computed and one that is fetched."""

CANCELLED = (-signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes of a run that the user has ended, who needs no error."""

SECONDS = 900.0
"""For one run, however busy this machine is."""

STAGE = ("-m", "graft.flows.cli", "repro", "--force", "--single-item", "features")


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        seconds: from the start of the first run to its end.
        twice: images of blocks that were computed more than once, over all runs of the case.
        orphans: processes that were left.
    """

    case: str
    outcome: str = ""
    seconds: float = 0.0
    twice: int = 0
    orphans: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def require(self, so: object, what: str) -> None:
        if not so:
            self.wrong.append(what)

    def row(self) -> list[str]:
        end = self.outcome if not self.wrong else f"WRONG: {'; '.join(self.wrong)}"
        return [self.case, f"{self.seconds:.0f}", str(self.twice), str(len(self.orphans)), end]


@dataclass
class World:
    """The cluster, and the project of a user who is on none of its machines.

    Attributes:
        expected: file of data/features -> md5, as the local engine writes them.
    """

    cluster: FarCluster
    project: Project
    images: int
    block: int
    expected: dict[str, str] = field(default_factory=dict)

    @property
    def exchange(self) -> Path:
        """Where the nodes leave their results."""
        return self.cluster.store / "graft"

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.cluster.user), MARK: self.cluster.lab.name, "NO_ALBUMENTATIONS_UPDATE": "1"}

    def forget(self) -> None:
        """Everything that was ever computed here and at the exchange."""
        for folder in (self.project.root / ".graft" / "cache" / "features", self.exchange):
            shutil.rmtree(folder, ignore_errors=True)

    def pack(self) -> dict[str, str]:
        folder = self.project.root / "data" / "features"
        return {file.name: md5(file) for file in sorted(folder.iterdir())} if folder.is_dir() else {}

    def end_runs(self) -> None:
        for one in self.own_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    def own_processes(self) -> list[psutil.Process]:
        """Of the user: those of the lab that are on no machine."""
        inside = {one.pid for machine in self.cluster.lab.machines for one in _tree(machine)}
        return [one for one in self.cluster.lab.marked() if one.pid not in inside and alive(one)]


def _tree(machine: Machine) -> list[psutil.Process]:
    if machine.process is None:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(machine.process.pid)
        return [root, *root.children(recursive=True)]
    return []


# One run


@dataclass
class Run:
    """`graft repro` of the stage features."""

    process: subprocess.Popen[bytes]
    log: Path
    begun: float

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> int:
        wait_for(self.ended, seconds=SECONDS)
        return int(self.process.returncode)

    @property
    def stage(self) -> psutil.Process:
        """The process that submits the job."""
        every = psutil.Process(self.process.pid).children(recursive=True)
        return next(one for one in every if "graft.flows.stage" in one.cmdline() and "features" in one.cmdline())


def start(world: World, name: str) -> Run:
    log = world.cluster.lab.folder / "logs" / f"run-{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *STAGE],
            cwd=world.project.root,
            env=world.project.environment(**world.environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Run(process, log, time.monotonic())


def results(world: World) -> dict[tuple[Path, int], int]:
    """(segment at the exchange, its inode) -> number of its images. One that is written again has another inode."""
    found = {}
    for folder in (world.exchange / "features").glob("*"):
        for segment, ids in _index(folder).items():
            with contextlib.suppress(FileNotFoundError):
                found[segment, segment.stat().st_ino] = len(ids)
    return found


def kept(world: World) -> int:
    """Images at the exchange."""
    ids = [one for folder in (world.exchange / "features").glob("*") for one in _index(folder).values()]
    return len(np.unique(np.concatenate(ids))) if ids else 0


@contextlib.contextmanager
def watched(world: World, one: Outcome) -> Iterator[None]:
    """Counts the images of blocks that come to the exchange while others have them there already."""
    seen, ended = results(world), threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            seen.update(results(world))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        one.twice = sum({**seen, **results(world)}.values()) - kept(world)


def in_the_middle(world: World, run: Run, blocks: int = 1) -> None:
    """Waits until so many blocks are at the exchange, and not all."""
    wait_for(lambda: run.ended() or len(results(world)) >= blocks, seconds=SECONDS)
    if run.ended():
        raise AssertionError(f"the run ended before it could be disturbed:\n{run.text()[-3000:]}")


# Cases


def ends_clearly(run: Run, one: Outcome, may_fail: bool) -> None:
    """The run completes, or it ends with one error for the user."""
    code, text = run.wait(), run.text()
    one.seconds = time.monotonic() - run.begun
    one.outcome = "completed" if code == 0 else f"ended with {code}"
    one.require(code == 0 or may_fail, f"it ended with {code}: {text[-400:]}")
    one.require("Traceback" not in text, f"a traceback: {text[-1500:]}")
    if code:
        errors = [line for line in text.splitlines() if line.lower().startswith("error")]
        one.outcome += f": {errors[0][:100]}" if errors else ""
        one.require(errors or code in CANCELLED, f"no error is named: {text[-400:]}")


def leaves_nothing(world: World, one: Outcome) -> None:
    """No job, no process that works for one, and no process of the user."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not (world.cluster.jobs() or world.cluster.workers() or world.own_processes()), seconds=90)
    one.orphans = describe([*world.cluster.workers(), *world.own_processes()])
    one.orphans += [f"job {job}" for job in world.cluster.jobs()]
    one.require(not one.orphans, f"left: {one.orphans}")


def goes_on(world: World, one: Outcome) -> None:
    """The next run computes only what is missing, and gives the bytes of the local engine."""
    before = kept(world)
    run = start(world, f"{one.case}-next")
    code = run.wait()
    one.require(code == 0, f"the next run ended with {code}: {run.text()[-1500:]}")
    if code == 0:
        computed = world.project.json("metrics/features.json")["cache_misses"]
        one.outcome += f"; the next run computed {computed} of {world.images}, {before} were there"
        one.require(computed == world.images - before, f"the next run computed {computed}, {before} were there")
        is_the_same(world, one)


def is_the_same(world: World, one: Outcome) -> None:
    one.require(world.pack() == world.expected, f"other bytes: {world.pack()} instead of {world.expected}")


def disturbed(world: World, case: str, disturb: Callable[[Run], object], may_fail: bool = False) -> Iterator[Outcome]:
    """A run that is disturbed in its middle, and the next one."""
    one = Outcome(case)
    world.forget()
    with watched(world, one):
        run = start(world, case)
        in_the_middle(world, run)
        disturb(run)
        ends_clearly(run, one, may_fail)
        leaves_nothing(world, one)
        if run.process.returncode == 0:
            is_the_same(world, one)
        goes_on(world, one)
    one.require(one.twice <= IN_FLIGHT * world.block, f"{one.twice} images were computed twice")
    yield one


def ground(world: World) -> Iterator[Outcome]:
    """The machines are apart: a node sees no project, no remote's folder and no code of Graft."""
    one, began = Outcome("apart", "a node sees no project, no remote, no code"), time.monotonic()
    for node in (world.cluster.head, *world.cluster.nodes):
        for place in (world.project.root, world.cluster.store, Path("/srv/files")):
            one.require(node.run("test", "-e", str(place), check=False).returncode, f"{node.name} sees {place}")
        done = node.run(sys.executable, "-c", "import graft.flows", check=False)
        one.require("No module named" in done.stderr, f"{node.name} has Graft's code")
    one.seconds = time.monotonic() - began
    yield one


def node_killed(world: World) -> Iterator[Outcome]:
    node = world.cluster.nodes[1]
    try:
        yield from disturbed(world, "kill -9 of a node", lambda run: node.kill())
    finally:
        if node.process is None:
            world.cluster.restart(node)


def driver_killed(world: World) -> Iterator[Outcome]:
    def kill(run: Run) -> None:
        drivers = [one for one in world.cluster.head.processes() if "graft.flows.cluster.driver" in one.cmdline()]
        assert drivers, describe(world.cluster.head.processes())
        for one in drivers:
            one.kill()

    yield from disturbed(world, "kill -9 of the driver", kill, may_fail=True)


def stage_killed(world: World) -> Iterator[Outcome]:
    """The process that submitted the job; DVC, above it, says that the stage failed."""
    yield from disturbed(world, "kill -9 of the stage", lambda run: run.stage.kill(), may_fail=True)


def submitter_killed(world: World) -> Iterator[Outcome]:
    """The stage, DVC, and graft at once, as if the machine had lost its power: only the lease ends the job."""
    one = Outcome("kill -9 of the submitter", "the job ended with its lease")
    world.forget()
    with watched(world, one):
        run = start(world, one.case)
        in_the_middle(world, run)
        world.end_runs()
        run.wait()
        leaves_nothing(world, one)
        one.seconds = time.monotonic() - run.begun
        goes_on(world, one)
    one.require(one.twice <= IN_FLIGHT * world.block, f"{one.twice} images were computed twice")
    yield one


def cancelled(world: World) -> Iterator[Outcome]:
    """As Prefect and Ctrl+C do it: the whole group."""
    yield from disturbed(
        world, "SIGTERM of the submitter", lambda run: os.killpg(run.process.pid, signal.SIGTERM), may_fail=True
    )


def disk_full(world: World) -> Iterator[Outcome]:
    node = world.cluster.nodes[0]
    try:
        yield from disturbed(world, "a full disk on a node", lambda run: node.fill_disk(), may_fail=True)
    finally:
        node.free_disk()


def reads_fail(world: World) -> Iterator[Outcome]:
    """The DVC remote is HTTP; results go by SSH."""
    one, before = Outcome("5 % of reads fail"), world.cluster.counts()
    world.forget()
    world.project.set("compute", exchange=f"{world.cluster.ssh}/graft")
    world.project.dvc("remote", "add", "--default", "mirror", world.cluster.http)
    try:
        run = start(world, one.case)
        ends_clearly(run, one, may_fail=False)
        leaves_nothing(world, one)
        is_the_same(world, one)
        after = world.cluster.counts()
        failed, reads = (after[name] - before[name] for name in ("failed", "reads"))
        one.outcome += f"; {failed} of {reads} reads failed"
        one.require(failed > 0.03 * reads > 0, "the reads did not fail")
        one.require(sum(results(world).values()) == world.images, "images were computed twice")
        goes_on(world, one)
    finally:
        world.project.dvc("remote", "default", "store")
        world.project.dvc("remote", "remove", "mirror")
        world.project.set("compute", exchange=None)
    yield one


CASES = {
    "apart": ground,
    "node": node_killed,
    "driver": driver_killed,
    "stage": stage_killed,
    "submitter": submitter_killed,
    "cancel": cancelled,
    "disk": disk_full,
    "reads": reads_fail,
}


# Rates


@dataclass
class Pace:
    """One undisturbed run: images a second as the stage says; seconds of its wall and of all processors."""

    rate: float
    wall: float
    processor: float


def pace(world: World, engine: str) -> Pace:
    world.project.set("compute", engine=engine)
    world.forget()
    run = start(world, f"pace-{engine}")
    far = engine == "ray"
    roots = [node.first for node in world.cluster.nodes] if far else [psutil.Process(run.process.pid)]
    with measured(roots) as cost:
        code = run.wait()
    if code or world.pack() != (world.expected or world.pack()):
        raise AssertionError(f"{engine} ended with {code}, or other bytes: {run.text()[-3000:]}")
    world.expected = world.pack()
    rate = float(world.project.json("metrics/features.json")["images_per_second"])
    return Pace(rate, time.monotonic() - run.begun, cost.seconds)


def rates(world: World, rounds: int) -> Outcome:
    """Local and Ray runs in turn, since this machine may be busy with other work; ratios of medians."""
    one, took = Outcome("rate"), dict[str, list[Pace]]()
    for engine in ("local", "ray") * rounds:
        took.setdefault(engine, []).append(pace(world, engine))
        print(f"  {engine}: {took[engine][-1]}", flush=True)
    local, ray = (_median(took[engine]) for engine in ("local", "ray"))
    one.seconds = ray.wall
    one.outcome = (
        f"{ray.rate / local.rate:.2f} of the local rate ({ray.rate:.0f} of {local.rate:.0f} images/s), "
        f"{ray.processor / local.processor:.2f} of its processor seconds ({ray.processor:.0f}, {local.processor:.0f}), "
        f"{(ray.processor - local.processor) * world.block / world.images:.2f} s more a block"
    )
    return one


def _median(paces: Sequence[Pace]) -> Pace:
    columns = ([getattr(one, name) for one in paces] for name in ("rate", "wall", "processor"))
    return Pace(*(statistics.median(column) for column in columns))


# All


def draw_images(folder: Path, count: int, photos: Path | None, seed: int = 0) -> None:
    """JPEG of 64 to 224 pixels: soft noise of three classes, or parts of photographs."""
    rng = np.random.default_rng(seed)
    sources = sorted(photos.rglob("*.jpg"))[:200] if photos else []
    pictures = [Image.open(file).convert("RGB").resize((256, 256)) for file in sources]
    for number in range(count):
        side = int(rng.integers(64, 225))
        if pictures:
            x, y = rng.integers(0, 257 - side, 2).tolist()
            picture = pictures[number % len(pictures)].crop((x, y, x + side, y + side))
        else:
            picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side))
        file = folder / "abc"[number % 3] / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=90)


def make_world(cluster: FarCluster, images: int, block: int, size: int, photos: Path | None) -> World:
    project = make_project(cluster.lab.folder / "project", **PARAMS)
    project.set("features", image_size=size)
    draw_images(project.root / "data" / "raw", images, photos)
    world = World(cluster, project, images, block)
    project.dvc("add", "data/raw")
    project.dvc("remote", "add", "here", str(cluster.store))
    project.dvc("push", "--remote", "here")  # as by SSH, which takes a busy machine minutes
    project.dvc("remote", "add", "--default", "store", cluster.ssh)
    project.graft("repro", "preprocess", **world.environment)
    project.set("compute", address=cluster.address, block=block)
    world.images = project.json("metrics/preprocess.json")["images"]
    return world


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [["case", "seconds", "images twice", "orphans", "outcome"], *(one.row() for one in outcomes)]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return "\n".join("  ".join([*(row[k].ljust(widths[k]) for k in range(4)), row[4]]) for row in rows)


def drill(world: World, rounds: int, only: Sequence[str]) -> list[Outcome]:
    outcomes = []
    if rounds:
        outcomes.append(rates(world, rounds))
        print(outcomes[-1].row(), flush=True)
    else:
        pace(world, "local")
        world.project.set("compute", engine="ray")
    for name in only or CASES:
        try:
            for one in CASES[name](world):
                outcomes.append(one)
        except AssertionError as error:
            outcomes.append(Outcome(name, wrong=[str(error)[-1500:]]))
            world.end_runs()
        print(outcomes[-1].row(), flush=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder to work in, which is kept; its content is deleted first")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--block", type=int, default=512, help="images that a node gets at once")
    parser.add_argument("--size", type=int, default=224, help="of the images as the network sees them, pixels")
    parser.add_argument("--photos", type=Path, help="a folder of photographs, instead of noise")
    parser.add_argument("--rounds", type=int, default=3, help="local runs and Ray runs to compare rates; 0: none")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[])
    asked = parser.parse_args()
    if able():
        print(f"this machine cannot be several: {able()}", file=sys.stderr)
        return 2
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the lab is left as on any other way out
    with contextlib.ExitStack() as kept:
        base = asked.folder or Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="graft-drill-")))
        lab = kept.enter_context(Lab("grdrill", base, "10.77.0"))
        cluster = FarCluster(lab)
        cluster.start()
        outcomes = drill(
            make_world(cluster, asked.images, asked.block, asked.size, asked.photos), asked.rounds, asked.only
        )
    print("\n" + table(outcomes))
    return 1 if any(one.wrong for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
