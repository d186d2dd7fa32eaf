"""`graft serve` beside `mlflow models serve` and LitServe: same package, same photographs, one run.

    python -m bench.serving --project FOLDER --photos FOLDER            about ten minutes
    python -m bench.serving --project FOLDER --photos FOLDER --seconds 3 --rounds 1     a trial

FOLDER is a project with a registered champion. For each server: time until the first answer, latency at one client,
requests per second and p99 at 1, 8 and 32 clients, memory of all its processes. Beside them the roofline: the package
in one process on the same photographs, without HTTP. Servers run one at a time; the clients are a process of their
own on the same machine. `--publish` writes bench/results/serving.json and the plot; LitServe is measured if it is in
build/bench/servers:

    pip install --target build/bench/servers litserve==0.2.19
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from graft.flows.serving.loading import open_model
from graft.tasks.register.serving import ImageClassifier

from . import plots, report
from .processes import BUILD, ROOT, environment, machine, say, versions

CLIENTS = (1, 8, 32)
SERVERS = BUILD / "servers"
"""Where LitServe is installed."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """How a server is started, and asked.

    Attributes:
        command: from the package and the port.
        body: of one photograph.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    path: str
    kind: str
    body: Callable[[bytes], bytes]


def _graft(_package: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "graft.flows.cli", "serve", "--port", str(port)]


def _mlflow(_package: Path, port: int) -> list[str]:
    words = ["models", "serve", "-m", "models:/graft@champion", "--env-manager", "local", "--port", str(port)]
    return [sys.executable, "-m", "mlflow", *words]


def _litserve(package: Path, port: int) -> list[str]:
    return [sys.executable, str(ROOT / "bench" / "peers" / "litserve_model.py"), str(package), str(port)]


def _in_object(content: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(content).decode()}).encode()


def _in_json(content: bytes) -> bytes:
    return json.dumps({"dataframe_records": [{"image": base64.b64encode(content).decode()}]}).encode()


def _as_it_is(content: bytes) -> bytes:
    return content


ALL = (
    Server("graft serve", _graft, "/predict", "application/octet-stream", _as_it_is),
    Server("mlflow models serve", _mlflow, "/invocations", "application/json", _in_json),
    Server("LitServe", _litserve, "/predict", "application/json", _in_object),
)


def measure(server: Server, project: Path, package: Path, bodies: Path, seconds: float) -> Json:
    """One server, once."""
    port = _free_port()
    began = time.perf_counter()
    with _running(server, project, package, port) as process:
        first = next(bodies.iterdir()).read_bytes()
        _first_answer(server, port, first, process)
        started = time.perf_counter() - began
        _load(server, port, bodies, 8, min(2.0, seconds))  # caches and threads are warm
        found = {str(clients): _load(server, port, bodies, clients, seconds) for clients in CLIENTS}
        return {"startup_seconds": round(started, 2), "memory_mib": round(_memory(process) / 2**20), "clients": found}


@contextmanager
def _running(server: Server, project: Path, package: Path, port: int) -> Iterator[psutil.Process]:
    more = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}", "PYTHONPATH": f"{ROOT / 'src'}"}
    if server.name == "LitServe":
        more["PYTHONPATH"] += f"{os.pathsep}{SERVERS}"
    with (BUILD / "server.log").open("w") as log:
        process = subprocess.Popen(
            server.command(package, port), cwd=project, env=environment(**more), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _first_answer(server: Server, port: int, body: bytes, process: psutil.Process) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}", body, {"Content-Type": server.kind}, method="POST"
    )
    for _ in range(1200):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            break
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60):
                return
        except urllib.error.HTTPError:
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"{server.name} does not answer\n{(BUILD / 'server.log').read_text()[-3000:]}")


def _load(server: Server, port: int, bodies: Path, clients: int, seconds: float) -> Json:
    words = ["--port", str(port), "--path", server.path, "--kind", server.kind, "--bodies", str(bodies)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", *words, "--clients", str(clients), "--seconds", str(seconds)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: Json = json.loads(done.stdout)
    if set(found["statuses"]) != {"200"}:
        raise RuntimeError(f"{server.name} answered {found['statuses']}")
    return found


def _memory(process: psutil.Process) -> int:
    """Resident, of all processes of the server; pages that they share count once for each."""
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def roofline(package: Path, contents: list[bytes], seconds: float) -> float:
    """Images per second of the package itself, decoding and network together on all cores."""
    model = ImageClassifier(package)
    model.predict(contents[:16])
    many = (contents * (1 + 256 // len(contents)))[:256]
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        model.predict(many)
        done += len(many)
    return round(done / (time.perf_counter() - began), 2)


def photographs(folder: Path, most: int) -> list[bytes]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    step = max(1, len(files) // most)
    return [file.read_bytes() for file in files[::step][:most]]


def medians(rounds: list[Json]) -> Json:
    """Over the rounds, of each number."""
    found: Json = {"roofline": round(median(one["roofline"] for one in rounds), 2), "servers": {}}
    for name in rounds[0]["servers"]:
        runs = [one["servers"][name] for one in rounds]
        found["servers"][name] = {
            "startup_seconds": round(median(run["startup_seconds"] for run in runs), 2),
            "memory_mib": round(median(run["memory_mib"] for run in runs)),
            **{
                f"{key}_at_{clients}": round(median(run["clients"][str(clients)][key] for run in runs), 2)
                for clients in CLIENTS
                for key in ("per_second", "p50_ms", "p99_ms")
            },
        }
    return found


def text(found: Json) -> str:
    """A table in Markdown."""
    head = ["", "start, s", "memory, MiB", "latency at 1 client, ms"]
    head += [f"per second at {clients}" for clients in CLIENTS] + [f"p99 at {clients}, ms" for clients in CLIENTS]
    rows = [
        [name, f"{one['startup_seconds']:.1f}", f"{one['memory_mib']:,}", f"{one['p50_ms_at_1']:.1f}"]
        + [f"{one[f'per_second_at_{clients}']:.1f}" for clients in CLIENTS]
        + [f"{one[f'p99_ms_at_{clients}']:.0f}" for clients in CLIENTS]
        for name, one in found["servers"].items()
    ]
    return f"{report.table(head, rows)}\n\nRoofline, the package in one process: {found['roofline']:.1f} per second."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--only", nargs="*", default=[server.name for server in ALL])
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    contents = photographs(given.photos, given.images)
    with open_model(None, given.project) as predictor:
        rounds = [_round(given, predictor.folder, contents, number) for number in range(given.rounds)]
    found = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "seconds": given.seconds,
        "photographs": len(contents),
        "medians": medians(rounds),
        "rounds": rounds,
    }
    print(text(found["medians"]))
    _write(found, report.Target.published() if given.publish else report.Target.trial(BUILD))


def _round(given: argparse.Namespace, package: Path, contents: list[bytes], number: int) -> Json:
    BUILD.mkdir(parents=True, exist_ok=True)
    servers: Json = {}
    for server in ALL:
        if server.name not in given.only or (server.name == "LitServe" and not SERVERS.is_dir()):
            continue
        bodies = _bodies(server, contents)
        servers[server.name] = measure(server, given.project.resolve(), package.resolve(), bodies, given.seconds)
        say(f"round {number + 1}: {server.name}: {servers[server.name]}")
    return {"roofline": roofline(package, contents, given.seconds), "servers": servers}


def _bodies(server: Server, contents: list[bytes]) -> Path:
    folder = BUILD / "bodies"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, content in enumerate(contents):
        (folder / f"{number:04}").write_bytes(server.body(content))
    return folder


def _write(found: Json, target: report.Target) -> None:
    target.images.mkdir(parents=True, exist_ok=True)
    target.json("serving").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    plots.plot_serving(found["medians"], target.images / "bench-serving.png")
    say(f"written: {target.json('serving')}, {target.images / 'bench-serving.png'}")


if __name__ == "__main__":
    main()
