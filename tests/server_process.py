"""`graft serve` as a process, and a client that asks it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects import ROOT, wait_for


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def json(self, path: str, document: Any, **headers: str) -> Answer:
        return self.ask("POST", path, json.dumps(document), content_type="application/json", **headers)

    def metric(self, line: str) -> float:
        """The value of a line of /metrics; 0 if there is none."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.ask("GET", "/metrics").body.decode(), re.M)
        return float(found[1]) if found else 0.0

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(folder: Path, *words: str, **more: str) -> Iterator[Served]:
    """`graft serve` in a folder, ready."""
    log = folder / "serve.log"
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "GRAFT_"))}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "graft.flows.cli", "serve", "--port", "0", *words],
            cwd=folder, env={**kept, "PYTHONPATH": str(ROOT / "src"), **more}, stdout=subprocess.PIPE, stderr=errors,
            text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        served = Served(process, int(re.search(r":(\d+) ", line)[1]))  # type: ignore[index]
        wait_for(lambda: _ready(served), seconds=60)
        yield served
    finally:
        process.kill()
        process.wait()


def _ready(served: Served) -> bool:
    assert served.process.poll() is None, "the server has ended"
    try:
        return served.ask("GET", "/ready").status == 200
    except ConnectionError:  # not yet listening, or ending at this moment
        return False
