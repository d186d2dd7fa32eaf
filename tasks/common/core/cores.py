"""How many processors this process may use: in a container or a batch job, fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")

SHARE = "GRAFT_CORES"
"""The variable with the processors that this process may use at most, where the system does not say so: a worker's
share of a machine."""


def cores() -> int:
    """Processors to start threads for, at least 1: those that the process may run on, or the CPU quota of its control
    group, rounded up, or $GRAFT_CORES, if that is less."""
    return max(1, math.ceil(min(_affinity(), quota(CGROUPS, _own_group()), _share())))


def cores_of_quota() -> int | None:
    """`cores` if a quota is what limits them; OpenVINO, torch and BLAS see the affinity alone."""
    allowed = cores()
    return allowed if allowed < _affinity() else None


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share() -> float:
    try:
        return float(os.environ[SHARE])
    except (KeyError, ValueError):
        return math.inf


def quota(root: Path, group: str) -> float:
    """The least quota, in processors, of a control group and those above it; infinite without one.

    Args:
        root: where control groups are mounted: version 2, or version 1 with its controller `cpu`.
        group: the process' own group, from the root on.
    """
    place = root / group.strip("/")
    above = [place, *place.parents]
    groups = above[: above.index(root) + 1] if root in above else [root]
    return min([_of_version_2(folder) for folder in groups] + [_of_version_1(root / "cpu")])


def _own_group() -> str:
    """Of version 2, whose line in /proc/self/cgroup is `0::/group`."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "/"
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def _of_version_2(folder: Path) -> float:
    """From cpu.max: `max 100000`, or microseconds of each period."""
    try:
        share, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if share == "max" else int(share) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _of_version_1(folder: Path) -> float:
    """A quota of -1 means none."""
    try:
        share, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
        return share / period if share > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
