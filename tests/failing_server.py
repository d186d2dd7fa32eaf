"""A web server that gives the files of a folder and fails some of the reads: half with 503, half in the middle.

    python tests/failing_server.py FOLDER ADDRESS PORT [SHARE [SEED]]

`GET /-/counts` tells how many reads there were, and how many failed.
"""

from __future__ import annotations

import json
import random
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit


class FailingServer(ThreadingHTTPServer):
    """Serves `folder`.

    Args:
        share: of the reads that fail.
    """

    daemon_threads = True

    def __init__(self, folder: Path, address: tuple[str, int], share: float, seed: int = 0) -> None:
        super().__init__(address, Reads)
        self.folder, self.share = folder.resolve(), share
        self.reads = self.failed = 0
        self._chance, self._lock = random.Random(seed), Lock()

    def fate(self) -> str:
        """How the next read ends: ``whole``, ``refused`` or ``cut``."""
        with self._lock:
            self.reads += 1
            if self._chance.random() >= self.share:
                return "whole"
            self.failed += 1
            return ("refused", "cut")[self.failed % 2]


class Reads(BaseHTTPRequestHandler):
    """GET with ranges, and HEAD."""

    protocol_version = "HTTP/1.1"
    server: FailingServer

    def do_HEAD(self) -> None:
        self._answer(fate="whole", body=False)

    def do_GET(self) -> None:
        if self.path == "/-/counts":
            self._send(200, json.dumps({"reads": self.server.reads, "failed": self.server.failed}).encode())
        else:
            self._answer(self.server.fate(), body=True)

    def _answer(self, fate: str, body: bool) -> None:
        file = (self.server.folder / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not file.is_relative_to(self.server.folder) or not file.is_file():
            self._send(404, b"", body=body)
        elif fate == "refused":
            self._send(503, b"")
        else:
            self._send_part(file.read_bytes(), cut=fate == "cut", body=body)

    def _send_part(self, content: bytes, cut: bool, body: bool) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self._send(200, content, cut=cut, body=body)
            return
        begin, end = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        span = f"bytes {begin}-{end}/{len(content)}"
        self._send(206, content[begin : end + 1], {"Content-Range": span}, cut=cut, body=body)

    def _send(
        self, code: int, content: bytes, more: dict[str, str] | None = None, cut: bool = False, body: bool = True
    ) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), "Accept-Ranges": "bytes", **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *words: object) -> None:
        """Not one line a read."""


if __name__ == "__main__":
    place, host, port, *rest = sys.argv[1:]
    share, seed = float(rest[0]) if rest else 0.05, int(rest[1]) if len(rest) > 1 else 0
    FailingServer(Path(place), (host, int(port)), share, seed).serve_forever()
