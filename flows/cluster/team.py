"""The processes of a training on the nodes of a Ray cluster: one for each GPU, or for each node without one.

A node that is lost ends the training of all; the processes that can still run start again from the last checkpoint.
Runs inside the cluster.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.progress import MARK

FIRST, PATIENCE = 120.0, 10.0
"""Seconds within which the first node must answer, and then the others, or they are left out."""

LOOK = 2.0
"""Seconds between two looks at the processes."""

GROWTH = 60.0
"""Seconds between two looks for nodes that have joined the cluster."""

LONGEST = 200
"""Characters of a reason."""

TOLD = ("finetune:", MARK)
"""What a line of a process starts with that is for the user."""


@dataclass(frozen=True)
class Seat:
    """A place for one process: the node, its address, and what the process may use."""

    node: str
    address: str
    cores: int
    gpus: int


class Lost(Exception):
    """Processes or nodes have ended, so that training has to start again with those that are left."""


class Grown(Lost):
    """Nodes have joined."""


def seats(most: int, versions: Mapping[str, str]) -> tuple[list[Seat], list[str]]:
    """(places on the nodes that answer, in the order of their names, at most so many; why other nodes are left out).

    Args:
        versions: that a node must have.
    """

    import ray

    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    answers = _ask(list(nodes), versions)
    gpus = any(node["Resources"].get("GPU") for node in nodes.values())
    found: list[Seat] = []
    refused = [f"{nodes[name]['NodeManagerHostname']}: {reason}" for name, (_, reason) in answers.items() if reason]
    for name in sorted(name for name, (_, reason) in answers.items() if not reason):
        cores, own = (int(nodes[name]["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        count = own if gpus else min(cores, 1)
        found += [Seat(name, answers[name][0], cores // max(count, 1), int(gpus))] * count
    return found[:most], refused


def _ask(nodes: list[str], versions: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Node -> its answer, see `_present`; of those that answer in time."""

    import ray

    task = ray.remote(num_cpus=0, max_retries=0)(_present)
    asked = {task.options(scheduling_strategy=_on(node)).remote(versions): node for node in nodes}
    started = time.monotonic()
    ray.wait(list(asked), num_returns=1, timeout=FIRST)
    patience = PATIENCE + 2 * (time.monotonic() - started)  # where all are slow, none is lost
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=patience)
    for one in late:
        ray.cancel(one, force=True)
    answers = {}
    for one in ready:
        with suppress(ray.exceptions.RayError):  # a node that has just ended
            answers[asked[one]] = ray.get(one)
    return answers


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _present(versions: Mapping[str, str]) -> tuple[str, str]:
    """(address of this node, why it cannot take part)."""
    import ray

    from graft.tasks.features.runners.pinned import require_versions

    try:
        require_versions(versions)
    except (GraftError, ImportError) as error:
        return "", " ".join(str(error).split())
    return str(ray.util.get_node_ip_address()), ""


class Lines(io.StringIO):
    """Standard error of a process; its lines for the user are kept until they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def write(self, text: str) -> int:
        self._lines += [line for line in text.splitlines() if line.startswith(TOLD)]
        return sys.__stderr__.write(text) if sys.__stderr__ else len(text)

    def taken(self) -> list[str]:
        taken, self._lines = self._lines, []
        return taken


class Member:
    """One of the processes; it can be asked for its lines while it works."""

    def __init__(self) -> None:
        self._lines = Lines()

    def port(self) -> int:
        """A free one, at which the processes meet."""
        with socket.socket() as free:
            free.bind(("", 0))
            return int(free.getsockname()[1])

    def lines(self) -> list[str]:
        return self._lines.taken()

    def work(self, place: Mapping[str, str], body: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Args:
        place: the variables by which torch and Accelerate find the other processes.
        """
        import ray

        from graft.tasks.environment import prepare_process

        prepare_process()
        interface = _interface(str(ray.util.get_node_ip_address()))
        os.environ.update({"GLOO_SOCKET_IFNAME": interface} if interface else {}, **place)
        with redirect_stderr(self._lines):
            body(*arguments)


def _interface(address: str) -> str:
    """The network interface of this address: Gloo would take that of the host's name, which may be the loopback."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, known in interfaces if any(one.address == address for one in known)), "")


def work_together(
    places: Sequence[Seat],
    body: Callable[..., Any],
    arguments: Sequence[Any],
    grown: Callable[[], bool],
    tell: Callable[[list[str]], None],
) -> None:
    """Runs `body(*arguments)` in a process for each place at once.

    Args:
        grown: asked now and then; whether to stop because there are more places by now.
        tell: takes the first process' lines for the user.

    Raises:
        GraftError: a process has raised it.
        Lost: processes have ended, or failed because another one has ended.
        Grown: see `grown`.
    """

    import ray

    members = [_member(place) for place in places]
    running: list[Any] = []
    try:
        meeting = {"MASTER_ADDR": places[0].address, "MASTER_PORT": str(ray.get(members[0].port.remote()))}
        for rank, member in enumerate(members):
            # Ray shows each process its own GPU alone, which is the first of those that it sees
            own = {"RANK": str(rank), "WORLD_SIZE": str(len(places)), "LOCAL_RANK": "0"}
            running.append(member.work.remote({**meeting, **own}, body, arguments))
        _follow(running, members[0], grown, tell)
    except ray.exceptions.RayError as error:
        for task in ray.wait(running, num_returns=len(running), timeout=LOOK)[0] if running else []:
            _raise_reason(task)  # the others fail because one of them has: it knows why
        raise Lost(_reason(error)) from error
    finally:
        for member in members:
            ray.kill(member)


def _member(place: Seat) -> Any:
    import ray

    return (
        ray.remote(Member)
        .options(
            num_cpus=place.cores,
            num_gpus=place.gpus,
            max_concurrency=2,
            scheduling_strategy=_on(place.node),
            runtime_env={"env_vars": {"GRAFT_CORES": str(max(1, place.cores))}},
        )
        .remote()
    )


def _raise_reason(task: Any) -> None:
    """Raises:
    GraftError: that of the process.
    """

    import ray

    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GraftError):
            raise error.cause from None
    except ray.exceptions.RayError:
        return


def _follow(running: list[Any], first: Any, grown: Callable[[], bool], tell: Callable[[list[str]], None]) -> None:
    import ray

    looked, left = time.monotonic(), list(running)
    while left:
        ready, left = ray.wait(left, num_returns=1, timeout=LOOK)
        lines = ray.get(first.lines.remote())
        if lines:
            tell(lines)
        for task in ready:
            ray.get(task)
        if left and time.monotonic() - looked >= GROWTH:
            looked = time.monotonic()
            if grown():
                raise Grown("nodes have joined")


def _reason(error: BaseException) -> str:
    """In one line."""

    import ray

    if isinstance(error, ray.exceptions.RayActorError):
        return "it or its node has ended"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:LONGEST] if lines else type(error).__name__
