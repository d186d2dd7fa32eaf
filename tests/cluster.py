"""A real Ray cluster of two nodes on this machine, and a project that uses it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from projects import free_port, wait_for

START = (
    "start",
    "--block",
    "--disable-usage-stats",
    "--num-cpus=1",
    "--object-store-memory=80000000",
    "--node-ip-address=127.0.0.1",
    "--include-log-monitor=false",
)

TRIES = 4

AGENTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
"""Ports that are chosen beforehand: by default both nodes take the same."""


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        folder: short, because sockets in it have paths of at most 107 bytes.
        address: of the job server.
        nodes: the processes of `ray start`: the head first.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    web: int = field(default_factory=free_port)
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.web}"

    def start(self) -> None:
        """A further node; the first is the head. Tried again, because Ray gives its agents 15 seconds to start, which a
        busy machine may take.

        Raises:
            AssertionError: it does not start.
        """
        head = ("--head", f"--port={self.port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.web}")
        words = (f"--address=127.0.0.1:{self.port}",) if self.nodes else head
        for attempt in range(TRIES):
            node = self._start(attempt, *words)
            wait_for(partial(self._settled, node), seconds=300)
            if node.poll() is None:
                self.nodes.append(node)
                return
            end(node)
        raise AssertionError((self.folder / f"node-{len(self.nodes)}.log").read_text(encoding="utf-8")[-3000:])

    def _start(self, attempt: int, *words: str) -> subprocess.Popen[bytes]:
        ports = (f"--{name}-port={free_port()}" for name in AGENTS)
        number = len(self.nodes)
        folder = f"--temp-dir={self.folder / f'{number}{attempt}'}"  # nodes that share one unpack code at the same time
        ray = str(Path(sys.executable).with_name("ray"))
        with (self.folder / f"node-{number}.log").open("wb") as log:
            return subprocess.Popen(
                [ray, *START, *ports, folder, *words],
                env={**os.environ, **self.environment(number)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def environment(self, number: int) -> dict[str, str]:
        """Of a node: its own cache, and this Python first, whose modules the driver needs."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # by default 15: beside other tests they would wait for minutes
            "PATH": path,
            "GRAFT_NODE_CACHE": str(self.folder / f"cache-{number}"),
        }

    def _settled(self, node: subprocess.Popen[bytes]) -> bool:
        """Whether the cluster has one more node, or the node has failed."""
        from ray.util.state import list_nodes

        with contextlib.suppress(Exception):
            return sum(one.state == "ALIVE" for one in list_nodes(address=self.address)) > len(self.nodes)
        return node.poll() is not None

    def workers(self) -> list[psutil.Process]:
        """The processes that compute."""
        return self._running("ray::Embedder")

    def drivers(self) -> list[psutil.Process]:
        """The processes of jobs that hand out work."""
        return self._running("-m graft.flows.cluster.driver")

    def _running(self, words: str) -> list[psutil.Process]:
        found = (process for node in self.nodes for process in children(node))
        return [process for process in found if words in name_of(process)]

    def stop(self) -> None:
        for node in self.nodes:
            end(node)
        shutil.rmtree(self.folder, ignore_errors=True)


def children(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def name_of(process: psutil.Process) -> str:
    """What it calls itself; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def end(node: subprocess.Popen[bytes]) -> None:
    """Kills a node with all its processes, as a machine that loses its power."""
    for process in children(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


@contextlib.contextmanager
def two_nodes() -> Iterator[Cluster]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="gr", dir="/tmp")))
    try:
        cluster.start()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
