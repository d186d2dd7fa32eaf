"""A Ray cluster on machines that share no folder, and the server of a DVC remote: SSH, or HTTP that fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil
from machines import Lab, Machine
from projects import ROOT, wait_for

STORE = "/srv"
"""Where the storage machine has the remote."""

SSHD = """
ListenAddress {address}
HostKey {home}/host_key
AuthorizedKeysFile {home}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 200
MaxSessions 200
PidFile none
Subsystem sftp internal-sftp
LogLevel ERROR
"""

START = (
    "ray start --block --disable-usage-stats --object-store-memory=80000000 --include-log-monitor=false"
    " --dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 --metrics-export-port=52367"
    " --runtime-env-agent-port=52368 --node-ip-address={} --num-cpus={}"
)
"""With chosen ports: Ray waits at most 15 s for agents to say which they took."""

PORT, DASHBOARD, MIRROR = 6379, 8265, 8080


class FarCluster:
    """A head without work, worker nodes of one core each, and a storage machine, in a lab.

    Args:
        nodes: how many.
        disk: size of the disk of each node, as for tmpfs.
    """

    def __init__(self, lab: Lab, nodes: int = 2, disk: str = "3g") -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.lab, self.store = lab, lab.folder / "store"
        self.storage = lab.machine("storage", 20)
        self.head = lab.machine("head", 10)
        self.nodes = [
            lab.machine(f"node{one}", 10 + one, str(cores[(one - 1) % len(cores)]), disk) for one in range(1, nodes + 1)
        ]
        self.user = lab.folder / "homes" / "user"
        self.user.mkdir()

    @property
    def address(self) -> str:
        """Of Ray's job server."""
        return f"http://{self.head.address}:{DASHBOARD}"

    @property
    def ssh(self) -> str:
        return f"ssh://root@{self.storage.address}{STORE}"

    @property
    def http(self) -> str:
        return f"http://{self.storage.address}:{MIRROR}"

    def start(self) -> None:
        self.store.mkdir()
        self._make_keys()
        self.start_storage()
        self.start_head()
        for number, node in enumerate(self.nodes):
            self.start_node(node)
            wait_for(lambda number=number: self.alive() >= number + 2, seconds=900)
        self.wait_until_ready()

    def _make_keys(self) -> None:
        """A key for the server, which all know, and one for each of those that use it."""
        storage, users = self.storage.home, [self.user, *(one.home for one in (self.head, *self.nodes))]
        host = _key(storage / "host_key")
        allowed = []
        for home in users:
            (home / ".ssh").mkdir(mode=0o700)
            allowed.append(_key(home / ".ssh" / "id_ed25519"))
            (home / ".ssh" / "known_hosts").write_text(f"{self.storage.address} {host}", encoding="ascii")
        (storage / "authorized_keys").write_text("".join(allowed), encoding="ascii")
        home = self.lab.folder / "home"
        text = SSHD.format(address=self.storage.address, home=home)
        (storage / "sshd_config").write_text(text, encoding="ascii")

    def start_storage(self, share: float = 0.05) -> None:
        """sshd, and a web server that fails this share of the reads."""
        home, sshd = self.lab.folder / "home", shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        web = f"{sys.executable} {ROOT}/tests/failing_server.py {STORE} {self.storage.address} {MIRROR} {share}"
        self.storage.boot(f"{web} &\n{sshd} -D -e -f {home}/sshd_config", {self.store: STORE})

    def counts(self) -> dict[str, int]:
        """The reads of the web server, and those that it failed."""
        return dict(json.loads(_get(f"{self.http}/-/counts")))

    def start_head(self) -> None:
        words = START.format(self.head.address, 0)
        self._boot(self.head, f"{words} --head --port={PORT} --dashboard-host={self.head.address}")
        wait_for(lambda: self.alive() >= 1, seconds=900)

    def start_node(self, node: Machine) -> None:
        self._boot(node, f"{START.format(node.address, 1)} --address={self.head.address}:{PORT}")

    def _boot(self, machine: Machine, words: str) -> None:
        """Ray gives up after 30 s, too few for a busy machine, and leaves processes that hold its ports."""
        machine.boot(f"for try in 1 2 3 4 5 6 7 8; do {words}; kill -9 -1; done")

    def alive(self) -> int:
        """Nodes that Ray knows to be alive, the head among them."""
        try:
            nodes = json.loads(_get(f"{self.address}/nodes?view=summary"))["data"]["summary"]
        except (OSError, ValueError, KeyError):
            return 0
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def wait_until_ready(self) -> None:
        """All nodes are there, and a job runs to its end."""
        wait_for(lambda: self.alive() == 1 + len(self.nodes), seconds=900)
        wait_for(lambda: self.job("true") == "SUCCEEDED", seconds=900)

    def job(self, command: str) -> str:
        """How a small job ended: Ray's word, or the error of submitting it."""
        from ray.job_submission import JobSubmissionClient

        try:
            client = JobSubmissionClient(self.address)
            job = client.submit_job(entrypoint=command)
        except (RuntimeError, ConnectionError) as error:
            return str(error)
        ends = ("SUCCEEDED", "FAILED", "STOPPED")
        return str(wait_for(lambda: next((one for one in ends if client.get_job_status(job) == one), ""), seconds=900))

    def jobs(self) -> list[str]:
        """Ids of jobs that have not ended."""
        from ray.job_submission import JobSubmissionClient

        every = JobSubmissionClient(self.address).list_jobs()
        return [str(one.submission_id) for one in every if str(one.status) in ("PENDING", "RUNNING")]

    def workers(self) -> list[psutil.Process]:
        """Processes that work for a job: none is left once it has ended. Ray keeps idle workers ready, which do not
        count."""
        return [one for machine in (self.head, *self.nodes) for one in machine.processes() if _works(one)]

    def restart(self, node: Machine) -> None:
        """Boots a node that was killed, with an empty disk."""
        wait_for(lambda: self.alive() <= len(self.nodes), seconds=120)
        self.start_node(node)
        self.wait_until_ready()


def _works(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    idle = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
    return "graft.flows" in title or (title.startswith("ray::") and not title.startswith(idle))


def _key(file: Path) -> str:
    """Makes a key without a passphrase; returns its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(file)], check=True)
    return file.with_name(f"{file.name}.pub").read_text(encoding="ascii")


def _get(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return bytes(answer.read())


def describe(processes: Sequence[psutil.Process]) -> list[str]:
    found = []
    for one in processes:
        try:
            found.append(f"{one.pid} {' '.join(one.cmdline())[:120]}")
        except psutil.Error:
            continue
    return found
