"""Stand-ins for the servers that have weights, and empty caches to fetch into."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest


@dataclass
class Server:
    """Serves `files` (path -> content) and notes what it was asked.

    Attributes:
        etags: path -> ETag.
        ranges: whether it can send the rest of a file.
        heeds_if_range: whether it looks at If-Range before it does.
        breaks_after: the bytes of a body after which it closes the connection; None sends all.
        status: sent instead of anything else, if given.
        served: (path, Range, status, bytes sent) of each GET.
    """

    address: str = ""
    files: dict = field(default_factory=dict)
    etags: dict = field(default_factory=dict)
    ranges: bool = True
    heeds_if_range: bool = True
    breaks_after: int | None = None
    status: int | None = None
    served: list = field(default_factory=list)


@pytest.fixture
def server():
    """A server on this machine, without files."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body):
            path = self.path.partition("?")[0]
            content, asked = state.files.get(path), self.headers.get("Range", "")
            if content is None or state.status:
                self.send_response(state.status or 404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            etag = state.etags.get(path, "")
            same = not state.heeds_if_range or self.headers.get("If-Range", etag) == etag
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges and same else 0
            status = 206 if start else 200
            if start >= len(content):
                status, rest = 416, b""
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
            else:
                rest = content[start:]
                self.send_response(status)
                self.send_header("X-Repo-Commit", "a" * 40)
                if etag:
                    self.send_header("ETag", etag)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if body:
                sent = rest[: state.breaks_after]
                state.served.append((path, asked, status, len(sent)))  # first: who has all of it looks at once
                self.wfile.write(sent)
                self.close_connection = True

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state.address = f"http://127.0.0.1:{listening.server_port}"
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    """The caches of Keras, torch and the hub are empty folders of this test, whatever this machine has."""
    from huggingface_hub import constants

    for name in ("keras", "torch", "hub"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_weights():
    """tiny_weights(seed) -> the tensors of a whole tiny network, with its classifier."""

    def make(seed):
        import timm
        import torch

        torch.manual_seed(seed)
        return timm.create_model("test_efficientnet", pretrained=False).state_dict()

    return make


@pytest.fixture
def hub(server, tiny_weights, monkeypatch):
    """A stand-in for timm's hub, which has the tiny network's weights of seed 11: `server`, `path`, `content`."""
    from huggingface_hub import constants
    from safetensors.torch import save

    path, content = "/timm/test_efficientnet.r160_in1k/resolve/main/model.safetensors", save(tiny_weights(11))
    server.files[path] = content
    server.etags[path] = f'"{hashlib.sha256(content).hexdigest()}"'
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return SimpleNamespace(server=server, path=path, content=content)


@pytest.fixture
def no_hub(monkeypatch):
    """The hub must not be asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
