"""The clients of the benchmark against a small server, and its medians and table."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from projects import ROOT

from bench.serving import CLIENTS, medians, text
from bench.soak import Clients, verdict


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: set[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.seen.add((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def test_clients_send_all_bodies_and_count_the_answers(tmp_path: Path) -> None:
    Handler.seen = set()
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(bytes([number]))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        words = ["--port", str(server.server_port), "--path", "/predict", "--kind", "image/png", "--seconds", "0.3"]
        done = subprocess.run(
            [sys.executable, "-m", "bench.load", *words, "--bodies", str(tmp_path), "--clients", "2"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        server.shutdown()
    found = json.loads(done.stdout)

    assert found["statuses"] == {"200": found["requests"]}
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert Handler.seen == {("/predict", bytes([number])) for number in range(3)}


def _round(rate: float) -> dict[str, Any]:
    clients = {str(count): {"per_second": rate * count, "p50_ms": 10.0, "p99_ms": 20.0} for count in CLIENTS}
    return {
        "roofline": 100.0,
        "servers": {"graft serve": {"startup_seconds": 1.0, "memory_mib": 300, "clients": clients}},
    }


def test_the_table_has_the_medians_of_the_rounds() -> None:
    found = medians([_round(1.0), _round(2.0), _round(9.0)])

    assert found["servers"]["graft serve"]["per_second_at_8"] == 16.0
    assert "| graft serve | 1.0 | 300 | 10.0 | 2.0 | 16.0 | 64.0 | 20 | 20 | 20 |" in text(found)


def test_a_soak_fails_by_one_wrong_status_or_one_lost_request() -> None:
    def clients() -> Clients:
        return Clients(0, [], [])

    good, wrong, lost = clients(), clients(), clients()
    good.statuses.update(["image 200", "garbage 422", "image 503"])
    wrong.statuses.update(["image 500"])
    lost.lost.append("reset")

    assert [verdict(one, [1.0], 0) for one in (good, wrong, lost)] == [0, 1, 1]
    assert verdict(good, [1.0], 1) == 1
