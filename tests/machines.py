"""Several machines on one: network namespaces on a bridge, each with processes, mounts, a home and a disk of its own.

For drills and their tests. Needs Linux, root, iproute2 and util-linux; leaves nothing behind, and removes what a killed
drill has left when the next one of the same name starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil
from projects import ROOT, wait_for

MARK = "GRAFT_MACHINES"
"""Set in the environment of all that a lab starts, so that nothing is overlooked."""

# A machine sees neither the lab's folder, which has the project and the remote, nor Graft's own source. Its disk lies
# where the lab's folder is, so that it is as small as told. The last line keeps `sh` as process 1, which reaps.
BOOT = """
set -e
mount -t tmpfs -o size=1g shm /dev/shm
cp -r {home} /dev/shm/home
{binds}
mount -t tmpfs hidden {source}
mount -t tmpfs hidden /var/tmp
mount -t tmpfs hidden /run
mkdir /run/sshd
mount -t tmpfs -o size={disk} disk {folder}
mv /dev/shm/home {folder}/home
mkdir {folder}/tmp
cd {folder}/home
ip link set lo up
set +e
{command}
exit $?
"""


def able() -> str:
    """Why there can be no machines here; empty if there can."""
    if sys.platform != "linux" or os.geteuid():
        return "needs Linux and root"
    missing = [name for name in ("ip", "unshare", "nsenter", "taskset", "mount") if not shutil.which(name)]
    if missing:
        return f"needs {', '.join(missing)} (iproute2, util-linux)"
    words = ("unshare", "--net", "--mount", "--pid", "--fork", "ip", "link", "add", "name", "one", "type", "veth")
    done = subprocess.run(words, capture_output=True, text=True)
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else ""


def call(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)} gave {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Machine:
    """One of a lab's. Its process 1 is `boot`'s shell: if that is killed, the kernel kills all others at once."""

    name: str
    address: str
    lab: Lab
    cores: str
    disk: str
    process: subprocess.Popen[bytes] | None = None
    command: str = ""
    binds: dict[Path, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return f"{self.lab.name}-{self.name}"

    @property
    def home(self) -> Path:
        """What the machine finds in its home when it boots; later changes there and here are apart."""
        return self.lab.folder / "homes" / self.name

    @property
    def log(self) -> Path:
        return self.lab.folder / "logs" / f"{self.name}.log"

    def boot(self, command: str = "sleep infinity", binds: dict[Path, str] | None = None) -> None:
        """Starts it with an empty disk.

        Args:
            binds: folder here -> where the machine sees it.
        """
        self.command, self.binds = command, binds or {}
        script = BOOT.format(
            home=self.home,
            binds="\n".join(f"mount --bind {folder} {place}" for folder, place in self.binds.items()),
            source=ROOT / "src",
            disk=self.disk,
            folder=self.lab.folder,
            command=command,
        )
        alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "taskset", "-c", self.cores, *alone, "sh", "-c", script],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._is_up, seconds=60)

    def _is_up(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.name} does not boot:\n{self.log.read_text(errors='replace')[-2000:]}")
        try:
            return bool(psutil.Process(self.process.pid).children()) and (
                subprocess.run(self.inside("test", "-d", f"{self.lab.folder}/tmp"), capture_output=True).returncode == 0
            )
        except psutil.NoSuchProcess:
            return False

    def reboot(self) -> None:
        self.boot(self.command, self.binds)

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "NO_ALBUMENTATIONS_UPDATE": "1", "DO_NOT_TRACK": "1"}
        folder = self.lab.folder
        return {
            "PATH": path,
            "HOME": f"{folder}/home",
            "TMPDIR": f"{folder}/tmp",
            "LANG": "C.UTF-8",
            MARK: self.lab.name,
            **quiet,
        }

    @property
    def first(self) -> psutil.Process:
        """Its process 1."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()[0]

    def inside(self, *words: str) -> list[str]:
        into = ("nsenter", "--target", str(self.first.pid), "--mount", "--net", "--pid", "--ipc")
        return [*into, "sh", "-c", f'cd {self.lab.folder}/home && exec "$@"', "sh", *words]

    def run(self, *words: str, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """A command on the machine."""
        done = subprocess.run(
            self.inside(*words), env=self.environment(), capture_output=True, text=True, timeout=seconds
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def processes(self) -> list[psutil.Process]:
        """All that run on the machine, without process 1 and without zombies."""
        if self.process is None or self.process.poll() is not None:
            return []
        return [one for one in self.first.children(recursive=True) if alive(one)]

    def kill(self) -> None:
        """`kill -9` of all its processes at the same moment; its disk and memory are lost."""
        if self.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                self.first.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
            self.process = None

    def fill_disk(self, left: int = 0) -> None:
        """Leaves so many bytes free on the disk, until `free_disk`."""
        size = f"$(( $(stat -f -c '%a * %S' {self.lab.folder}) - {left} ))"
        self.run("sh", "-c", f"head -c {size} /dev/zero > {self.lab.folder}/filler", check=False)

    def free_disk(self) -> None:
        self.run("rm", "-f", f"{self.lab.folder}/filler")


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Lab:
    """A bridge, and machines on it. This machine is `.1` on it. Used as a context, which ends all of them.

    Args:
        name: at most seven characters; two labs of one name are never there at once.
        folder: what the lab needs here. Its content is deleted first. No machine sees it.
        network: the first three numbers of the addresses.
    """

    def __init__(self, name: str, folder: Path, network: str) -> None:
        self.name, self.folder, self.network = name, folder.resolve(), network
        self.machines: list[Machine] = []

    def __enter__(self) -> Lab:
        self._lock = Path(f"/run/{self.name}.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.clean()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("homes", "logs"):
            (self.folder / name).mkdir(parents=True)
        call("ip", "link", "add", self.name, "type", "bridge")
        call("ip", "address", "add", f"{self.network}.1/24", "dev", self.name)
        call("ip", "link", "set", self.name, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:
            machine.kill()
        self.clean()
        self._lock.close()

    def machine(self, name: str, number: int, cores: str = "", disk: str = "4g") -> Machine:
        """A machine that is not booted yet.

        Args:
            number: the last one of its address.
            cores: as for `taskset`; all if empty.
        """
        every = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        one = Machine(name, f"{self.network}.{number}", self, cores or every, disk)
        one.home.mkdir(parents=True)
        here = f"{self.name}{number}"
        call("ip", "netns", "add", one.namespace)
        call("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", one.namespace)
        call("ip", "link", "set", here, "master", self.name, "up")
        for words in (("address", "add", f"{one.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            call("ip", "-netns", one.namespace, *words)
        self.machines.append(one)
        return one

    def marked(self) -> list[psutil.Process]:
        """The processes that this lab, or an earlier one of its name, has started, here and on its machines."""
        return [one for one in psutil.process_iter() if one.pid != os.getpid() and _mark(one) == self.name]

    def clean(self) -> None:
        """Ends the lab's processes and removes its network; mounts end with the processes that see them."""
        deadline = time.monotonic() + 60
        while (left := self.marked()) and time.monotonic() < deadline:
            for one in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(left, timeout=5)
        for line in call("ip", "netns", "list").splitlines():
            if line.split(" ")[0].startswith(f"{self.name}-"):
                call("ip", "netns", "delete", line.split(" ")[0])
        call("ip", "link", "delete", self.name, check=False)


def _mark(process: psutil.Process) -> str:
    try:
        return str(process.environ().get(MARK, "")) if alive(process) else ""
    except (psutil.Error, OSError):
        return ""


@contextlib.contextmanager
def measured(roots: Sequence[psutil.Process]) -> Iterator[Cost]:
    """Processor seconds of processes and all that they start."""
    from threading import Event, Thread

    cost, ended = Cost(), Event()

    def look() -> None:
        while not ended.wait(0.2):
            cost.sample(roots)

    cost.sample(roots)
    cost.first = dict(cost.last)
    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield cost
    finally:
        cost.sample(roots)
        ended.set()
        thread.join()


@dataclass
class Cost:
    """Process -> its processor seconds, at first and when it was last seen."""

    first: dict[tuple[int, float], float] = field(default_factory=dict)
    last: dict[tuple[int, float], float] = field(default_factory=dict)

    def sample(self, roots: Sequence[psutil.Process]) -> None:
        for root in roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        times = one.cpu_times()
                        self.last[one.pid, one.create_time()] = times.user + times.system

    @property
    def seconds(self) -> float:
        return sum(self.last.values()) - sum(self.first.values())
