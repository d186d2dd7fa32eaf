"""One worker a node, fed with blocks: a lost node's blocks go to others, and a node that refuses is left out.

Ray's own ActorPool and Ray Data know neither nodes that refuse nor blocks that may fail alone, see ADR 14.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from graft.tasks.common.core.errors import GraftError

AHEAD = 2
"""Blocks that a worker has at once: the images of one are fetched while another is computed."""

ATTEMPTS = 3
"""How often a block is tried, and a worker started on one node."""

WAIT = 1.0
"""Seconds between two looks at the nodes of the cluster."""

PATIENCE = 60.0
"""Seconds that a cluster without any node that could work has to bring one up."""

LONGEST = 7200.0
"""Seconds after which a worker's first block is given up: something hangs that has no time limit of its own."""

SLOWER = 10
"""How many times as long as the slowest block so far a later one may take, if that is more than `LEAST`."""

LEAST = 900.0

Answer = dict[str, Any]
"""A worker's answer: what it reports; or one of `REFUSED`, `AGAIN` and `FATAL` with the reason."""

REFUSED, AGAIN, FATAL, FAILED = "refused", "again", "fatal", "failed"


@dataclass
class Block:
    """`number` names it in reports; `content` is what the worker gets; `attempts` failed so far; `since` when it was
    handed out."""

    number: int
    content: Any
    attempts: int = 0
    since: float = 0.0


@dataclass
class Worker:
    """The worker of a node, or of one of its GPUs.

    Attributes:
        node, host: Ray's id of the node, and its name.
        cores: its share of the node's processors.
        gpus: 0 or 1.
        actor: the running actor; None before it is started, and when it has been lost.
        ready: whether it has agreed to work.
        refused: why it does not.
        blocks: how many it has to do.
        losses: how often it was lost.
    """

    node: str
    host: str
    cores: int
    gpus: int
    actor: Any = None
    ready: bool = False
    refused: str = ""
    blocks: int = 0
    losses: int = 0


class NoWorkers(GraftError):
    """No node of the cluster can do the work."""


class Pool:
    """Args:
    start: gives the actor of a worker; its `prepare` answers with {} or a refusal, its `work(number, content)` with a
        report.
    report: takes each answer that is a report, each refusal, and each block that has failed.
    gpu: whether a worker needs a GPU.
    """

    def __init__(self, start: Callable[[Worker], Any], report: Callable[[Answer], None], gpu: bool = False) -> None:
        self._start, self._report, self._gpu = start, report, gpu
        self._workers: dict[tuple[str, int], Worker] = {}
        self._waiting: dict[Any, tuple[Worker, Block | None]] = {}
        self._again: deque[Block] = deque()
        self._looked = -WAIT
        self._alone: float | None = None
        self._slowest = 0.0

    def run(self, blocks: Iterator[Block]) -> None:
        """Has each block worked on until it is reported, or has failed too often, which is reported too.

        Raises:
            NoWorkers: no node is left.
            GraftError: a worker found that the work cannot be done anywhere.
        """
        import ray

        left = True
        while left or self._again or any(block for _, block in self._waiting.values()):
            self._look()
            left = self._feed(blocks) and left
            self._require_workers()
            if not self._waiting:
                time.sleep(WAIT if left or self._again else 0)
                continue
            done, _ = ray.wait(list(self._waiting), num_returns=1, timeout=WAIT)
            for reference in done:
                self._settle(reference)
            self._give_up_what_hangs()

    def _look(self) -> None:
        """Takes in nodes that have joined, starts lost workers again, and forgets nodes that have left."""
        import ray

        if time.monotonic() - self._looked < WAIT:
            return
        self._looked = time.monotonic()
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for node in alive.values():
            for number, share in enumerate(_shares(node, self._gpu)):
                self._workers.setdefault((share.node, number), share)
        for key, worker in list(self._workers.items()):
            if worker.node not in alive and worker.actor is None:
                del self._workers[key]
            elif worker.actor is None and not worker.refused:
                worker.actor = self._start(worker)
                self._waiting[worker.actor.prepare.remote()] = (worker, None)

    def _feed(self, blocks: Iterator[Block]) -> bool:
        """Gives work to the workers that have room; False when `blocks` has ended."""
        for most in range(1, AHEAD + 1):
            for worker in self._workers.values():
                if worker.ready and worker.blocks < most:
                    block = self._again.popleft() if self._again else next(blocks, None)
                    if block is None:
                        return False
                    worker.blocks, block.since = worker.blocks + 1, time.monotonic()
                    self._waiting[worker.actor.work.remote(block.number, block.content)] = (worker, block)
        return True

    def _settle(self, reference: Any) -> None:
        import ray

        worker, block = self._waiting[reference]
        try:
            answer: Answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # a bug of ours, or a library's
            answer = {AGAIN if block else REFUSED: _last_line(error.cause or error)}
        except ray.exceptions.RayError as error:
            self._lose(worker, _last_line(error))
            return
        del self._waiting[reference]
        if FATAL in answer:
            raise GraftError(answer[FATAL])
        if REFUSED in answer:
            self._refuse(worker, answer[REFUSED])
        if block is None:
            worker.ready = not worker.refused and AGAIN not in answer
            if AGAIN in answer:
                self._lose(worker, answer[AGAIN])
            return
        worker.blocks -= 1
        self._slowest = max(self._slowest, time.monotonic() - block.since)
        if REFUSED in answer:
            self._again.append(block)
        elif AGAIN in answer:
            self._try_again(block, answer[AGAIN])
        else:
            self._report(answer | {"block": block.number, "node": worker.node})

    def _lose(self, worker: Worker, reason: str) -> None:
        """The worker's process, or its node, has ended: its blocks go to others."""
        lost = [reference for reference, (other, _) in self._waiting.items() if other is worker]
        for reference in lost:
            block = self._waiting.pop(reference)[1]
            if block is not None:
                self._try_again(block, f"its worker on {worker.host} ended: {reason}")
        worker.actor, worker.ready, worker.blocks, worker.losses = None, False, 0, worker.losses + 1
        if worker.losses >= ATTEMPTS:
            self._refuse(worker, f"its worker ended {ATTEMPTS} times: {reason}")

    def _give_up_what_hangs(self) -> None:
        import ray

        limit = max(LEAST, SLOWER * self._slowest) if self._slowest else LONGEST
        late = {
            id(worker): worker
            for worker, block in self._waiting.values()
            if block is not None and time.monotonic() - block.since > limit
        }
        for worker in late.values():
            ray.kill(worker.actor)
            self._lose(worker, f"it did not answer for {limit:,.0f} seconds")

    def _refuse(self, worker: Worker, reason: str) -> None:
        if not worker.refused:
            worker.refused, worker.ready = reason, False
            self._report({REFUSED: reason, "host": worker.host})

    def _try_again(self, block: Block, reason: str) -> None:
        block.attempts += 1
        if block.attempts < ATTEMPTS:
            self._again.append(block)
        else:
            self._report({FAILED: block.number, "reason": reason})

    def _require_workers(self) -> None:
        """Gives a cluster some time to bring up a node, and none where all have refused."""
        able = [worker for worker in self._workers.values() if not worker.refused]
        if able or any(block for _, block in self._waiting.values()):
            self._alone = None
            return
        self._alone = self._alone or time.monotonic()
        if self._workers or time.monotonic() - self._alone > PATIENCE:
            reasons = dict.fromkeys(f"{worker.host}: {worker.refused}" for worker in self._workers.values())
            raise NoWorkers(
                "no node of the cluster can do the work",
                got="; ".join(reasons) or f"no node with {'a GPU' if self._gpu else 'a processor'}",
                todo="correct what the nodes refuse, or set `compute.engine: local`",
            )


def _shares(node: dict[str, Any], gpu: bool) -> list[Worker]:
    """A worker for all processors of a node; with GPUs, one for each of them."""
    cores, gpus = int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))
    many = gpus if gpu else min(cores, 1)
    return [Worker(node["NodeID"], node["NodeManagerHostname"], cores // many, int(gpu)) for _ in range(many)]


def _last_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
