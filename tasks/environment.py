"""What the processes of one pipeline execution pass to one another: variables and the names of processes."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from .common.core.cores import cores_of_quota

LEASH = "GRAFT_LEASH"
"""The variable that names the flow's process, by its key."""

PARENT = "GRAFT_PARENT_RUN_ID"
"""The variable by which the flow tells its stages which MLflow run they belong to."""

FLOW_RUN, FLOW_RUN_URL = "GRAFT_FLOW_RUN_ID", "GRAFT_FLOW_RUN_URL"
"""The variables by which the flow names itself."""

PROJECT = "GRAFT_PROJECT"
"""The variable with the only project that a worker or `graft schedule` runs."""

TRIAL = "DVC_EXP_NAME"
"""The variable in which `dvc exp run` names the trial to the stages that it runs."""

LOOPBACK = ("127.0.0.1", "localhost")


def of_flow() -> dict[str, str]:
    """The variables by which the flow has named itself to this process; empty without a flow."""
    return {name: os.environ[name] for name in (PARENT, FLOW_RUN, FLOW_RUN_URL) if os.environ.get(name)}


def trial() -> str:
    """The name of the trial of `dvc exp run` that this process works for; empty outside of one."""
    return os.environ.get(TRIAL, "")


def own_python_first() -> dict[str, str]:
    """This process's environment with this Python first in the PATH, so that dvc.yaml's `python` is this one."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])}


def prepare_process() -> None:
    """Makes the libraries work on this machine, as this user. Call it before numpy is imported."""
    no_proxy_for_this_machine()
    name_for_this_user()
    heed_the_quota()
    draw_to_files_only()


def no_proxy_for_this_machine() -> None:
    """Excludes this machine from your proxy, which cannot connect its processes with each other."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if "*" not in hosts:
        text = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
        os.environ.update({"no_proxy": text, "NO_PROXY": text})


def draw_to_files_only() -> None:
    """Overrides a backend of matplotlib that a notebook or a shell has chosen: with one that this environment lacks,
    nothing could be drawn."""
    os.environ["MPLBACKEND"] = "agg"


def heed_the_quota() -> None:
    """Bounds the threads of BLAS and torch by a quota of processors, which they do not see, in this process and its
    children. Your own settings stay."""
    if (few := cores_of_quota()) is not None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(few))


def name_for_this_user() -> None:
    """Gives a user id that the system does not know, as containers of OpenShift have, a name and a home folder.

    Python's standard library, DVC and MLflow end with an error without them. Your own USER and HOME stay.
    """
    user = os.getuid()
    try:
        pwd.getpwuid(user)
    except KeyError:
        for name in ("USER", "LOGNAME"):
            os.environ.setdefault(name, f"user{user}")
        if not os.access(os.environ.get("HOME") or "/nowhere", os.W_OK):
            os.environ["HOME"] = str(_private_folder(Path(tempfile.gettempdir()) / f"graft-home-{user}"))


def _private_folder(folder: Path) -> Path:
    """The folder if nobody else can have put anything into it, or else a new one."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o022
    return folder if own else Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))


def process_key(process: psutil.Process) -> str:
    """A name for a process that no other one ever has: the operating system reuses numbers."""
    return f"{socket.gethostname()}:{process.pid}:{birth(process)}"


def birth(process: psutil.Process) -> str:
    """When a process started, independent of the clock's setting: the boot, and ticks since then."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:  # not Linux; a process that has ended has no creation time either
        return f"{process.create_time():.2f}"
    return f"{boot}/{int(fields[19])}"  # field 22 of the whole line


def command_words(process: psutil.Process) -> list[str]:
    """The command line, without the interpreter that runs it and its `-P` and `-m`."""
    try:
        words = list(process.cmdline())
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return []
    if words and Path(words[0]).name.startswith("python"):
        words = words[2:] if words[1:2] == ["-P"] else words[1:]
        words = words[1:] if words[:1] == ["-m"] else words
    return [Path(words[0]).name, *words[1:]] if words else []
