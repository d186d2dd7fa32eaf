"""Chromium without a window, driven through its own protocol; for tests of pages and for their screenshots."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from projects import wait_for
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]


class Page:
    """A page of its own.

    Attributes:
        loaded: the addresses that it has asked for.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, count(1)
        self.loaded: list[str] = []
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(timeout=60))
            if told.get("method") == "Network.requestWillBeSent":
                self.loaded.append(told["params"]["request"]["url"])
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    def resize(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        wait_for(lambda: self.run("document.readyState") == "complete", seconds=30)

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def choose(self, selector: str, *files: Path) -> None:
        """Files in an <input type=file>, as if by hand."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def drop(self, name: str, kind: str, content: bytes) -> None:
        """A file dropped on the page."""
        text = base64.b64encode(content).decode()
        self.run(
            "(() => {"
            f"const bytes = Uint8Array.from(atob('{text}'), c => c.charCodeAt(0));"
            "const data = new DataTransfer();"
            f"data.items.add(new File([bytes], {json.dumps(name)}, {{type: {json.dumps(kind)}}}));"
            "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));"
            "})()"
        )

    def screenshot(self, file: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Args:
    folder: for its profile.
    """
    assert CHROMIUM is not None
    with (folder / "chromium.log").open("w+") as log:
        process = subprocess.Popen([CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}"], stderr=log)
        try:
            found = wait_for(lambda: re.search(r"ws://(\S+)/devtools", Path(log.name).read_text()), seconds=60)
            with _target(found[1]) as page:
                yield page
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def _target(address: str) -> Iterator[Page]:
    host = http.client.HTTPConnection(address, timeout=30)
    host.request("PUT", "/json/new?about:blank")
    target = json.loads(host.getresponse().read())
    with connect(target["webSocketDebuggerUrl"], max_size=None, origin=None) as socket:
        yield Page(socket)
