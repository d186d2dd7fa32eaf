"""What the server may take and how long it waits; `graft serve --help` explains what can be set."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from graft.tasks.common.core.cores import cores

MB = 2**20

HEADER_SECONDS = 10.0
"""For the headers of a request, from its first byte on; and for the first byte of a new connection."""

BODY_SECONDS, BODY_RATE = 10.0, 8192
"""A body must have this many bytes a second on average, after the first seconds."""

LINGER_SECONDS, LINGER_BYTES = 5.0, 256 * MB
"""How much of a refused body is read and dropped: a client that is still sending would not see the answer otherwise."""

SEND_SECONDS = 30.0
"""For the client to take a part of an answer."""

BUFFERED_BYTES = 512 * MB
"""Of all request bodies that one process holds at a time."""

MAX_CONNECTIONS = 4000
"""Of one process; the one that is idle for longest is closed for a new one."""


@dataclass(frozen=True)
class Settings:
    """Attributes:
    model: as `open_model` takes it; None for the champion, or models/package.
    key: that clients need; empty for none.
    hosts: allowed names in the header `Host`, without ports; empty for any.
    max_bytes: of one image, encoded.
    max_request_bytes: of one request.
    max_images: in one request.
    queue: images that may wait or be worked on, in one process.
    timeout: seconds for the answer to a request that has arrived.
    threads: that compute features at the same time; 0 for the cores, shared by the workers.
    poll: seconds between two looks at the alias; 0 for none.
    drain: seconds for accepted requests after SIGTERM.
    load_first: open the port only with a loaded model: a worker that starts again must not refuse what others could
        answer.
    log: the folder for what was answered; empty keeps nothing.
    keep_unsure: keep pictures on which the model is unsure.
    keep_random: the share of all pictures to keep.
    """

    model: str | None = None
    project: str = "."
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int = 0
    key: str = ""
    hosts: tuple[str, ...] = ()
    max_bytes: int = 32 * MB
    max_request_bytes: int = 64 * MB
    max_images: int = 64
    queue: int = 256
    timeout: float = 30.0
    poll: float = 30.0
    drain: float = 30.0
    keep_alive: int = 15
    access_log: bool = False
    load_first: bool = False
    log: str = ""
    log_max_mb: int = 1000
    log_seconds: float = 10.0
    keep_unsure: bool = False
    keep_random: float = 0.0

    @property
    def streams(self) -> int:
        """Inference threads: the cores, shared by the worker processes."""
        return self.threads or max(1, cores() // self.workers)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "hosts": tuple(values["hosts"])})
