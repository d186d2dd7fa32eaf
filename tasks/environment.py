"""What the processes of one pipeline execution tell one another: variables, and names of processes."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import psutil

LEASH = "GRAFT_LEASH"
"""The variable that names the flow's process, by its key."""

PARENT = "GRAFT_PARENT_RUN_ID"
"""The variable by which the flow tells its stages which MLflow run they belong to."""

FLOW_RUN, FLOW_RUN_URL = "GRAFT_FLOW_RUN_ID", "GRAFT_FLOW_RUN_URL"
"""The variables by which the flow names itself."""


PROJECT = "GRAFT_PROJECT"
"""The variable with the project that a worker, or `graft serve`, runs; it takes no other."""

LOOPBACK = ("127.0.0.1", "localhost")


def of_flow() -> dict[str, str]:
    """What the flow has told this process of itself; empty without a flow."""
    return {name: os.environ[name] for name in (PARENT, FLOW_RUN, FLOW_RUN_URL) if os.environ.get(name)}


def own_python_first() -> dict[str, str]:
    """This process's environment with this Python first in the PATH, so that dvc.yaml's `python` is this one."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])}


def no_proxy_for_this_machine() -> None:
    """Keeps a proxy of yours out of what this machine's processes say to each other, which it cannot deliver."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if "*" not in hosts:
        text = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
        os.environ.update({"no_proxy": text, "NO_PROXY": text})


def process_key(process: psutil.Process) -> str:
    """Names a process on this machine for all time: a number alone comes again."""
    return f"{socket.gethostname()}:{process.pid}:{birth(process)}"


def birth(process: psutil.Process) -> str:
    """When a process began, in words that the setting of a clock does not change: the boot, and ticks since then."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:  # no Linux; a process that is gone has no time of creation either
        return f"{process.create_time():.2f}"
    return f"{boot}/{int(fields[19])}"  # field 22 of the whole line
