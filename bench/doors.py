"""The same photographs through every door of a model: do all give the same answer?

    python -m bench.doors --project FOLDER --photos FOLDER [--images 500] [--onnx FILE]

FOLDER is a project with a registered champion. The doors: `graft predict`, the four request forms of `graft serve` (raw
bytes, multipart, Open Inference Protocol, MLflow's /invocations), MLflow's pyfunc, and an exported ONNX file in ONNX
Runtime. Prints for each the share of equal labels and the largest difference of a probability from the package.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.flows.serving.loading import open_model

from .processes import environment

Rows = npt.NDArray[np.float64]
"""Probabilities (N, K)."""

BATCH = 20
"""Images in one request of the forms that take several."""


def rows_of(answers: list[dict[str, Any]], classes: list[str]) -> Rows:
    return np.array([[answer["probabilities"][name] for name in classes] for answer in answers])


def by_predict(project: Path, files: list[Path], classes: list[str]) -> Rows:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as output:
        words = ["-m", "graft.flows.cli", "predict", "-", "--no-cache", "--output", output.name, "--project", project]
        paths = "\n".join(map(str, files))
        subprocess.run([sys.executable, *map(str, words)], input=paths, text=True, check=True, env=environment())
        lines = Path(output.name).read_text(encoding="utf-8").splitlines()
    return rows_of([json.loads(line) for line in lines], classes)


def by_pyfunc(project: Path, files: list[Path], classes: list[str]) -> Rows:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/graft@champion")
    found = model.predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))
    return rows_of(found.to_dict("records"), classes)


def by_onnx(onnx: Path, files: list[Path], _classes: list[str]) -> Rows:
    import onnxruntime
    from PIL import Image, ImageOps

    session = onnxruntime.InferenceSession(str(onnx))
    (name,) = (one.name for one in session.get_inputs())
    outputs = [one.name for one in session.get_outputs()]
    at = outputs.index("probabilities")
    rows = []
    for file in files:
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
        rows.append(np.asarray(session.run(None, {name: pixels})[at], np.float64).reshape(-1))
    return np.array(rows)


def post(port: int, path: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": kind}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def by_raw_bytes(port: int, files: list[Path], classes: list[str]) -> Rows:
    kind = "application/octet-stream"
    return rows_of([post(port, "/predict", file.read_bytes(), kind) for file in files], classes)


def by_multipart(port: int, files: list[Path], classes: list[str]) -> Rows:
    answers = []
    for start in range(0, len(files), BATCH):
        parts = [
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n'
            b"Content-Type: image/jpeg\r\n\r\n%s\r\n" % (number, file.read_bytes())
            for number, file in enumerate(files[start : start + BATCH])
        ]
        found = post(port, "/predict", b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x")
        answers += found if isinstance(found, list) else [found]
    return rows_of(answers, classes)


def by_open_inference(port: int, files: list[Path], classes: list[str]) -> Rows:
    rows: list[Any] = []
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        data = [base64.b64encode(file.read_bytes()).decode() for file in part]
        asked = {"inputs": [{"name": "image", "shape": [len(part)], "datatype": "BYTES", "data": data}]}
        found = post(port, "/v2/models/graft/infer", json.dumps(asked).encode(), "application/json")
        outputs = {one["name"]: one for one in found["outputs"]}
        rows.append(np.array(outputs["probabilities"]["data"], np.float64).reshape(len(part), len(classes)))
    return np.concatenate(rows)


def by_invocations(port: int, files: list[Path], classes: list[str]) -> Rows:
    answers = []
    for start in range(0, len(files), BATCH):
        records = [{"image": base64.b64encode(file.read_bytes()).decode()} for file in files[start : start + BATCH]]
        body = json.dumps({"dataframe_records": records}).encode()
        answers += post(port, "/invocations", body, "application/json")["predictions"]
    return rows_of(answers, classes)


SERVED: dict[str, Callable[[int, list[Path], list[str]], Rows]] = {
    "serve, raw bytes": by_raw_bytes,
    "serve, multipart": by_multipart,
    "serve, Open Inference Protocol": by_open_inference,
    "serve, /invocations": by_invocations,
}


@contextmanager
def serving(project: Path, *words: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server on a free port, ready; stopped afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "graft.flows.cli", "serve", "--port", str(port), *words]
    process = subprocess.Popen(command, cwd=project, env=environment())
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield port, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--onnx", type=Path)
    asked = parser.parse_args()
    files = sorted(file.resolve() for file in asked.photos.rglob("*.jpg"))
    files = files[:: max(1, len(files) // asked.images)][: asked.images]
    project = asked.project.resolve()
    os.chdir(project)
    with open_model("champion", project) as model:
        classes = model.classifier.classes
        expected = np.concatenate(
            [rows_of(model.classifier.predict(files[at : at + 100]), classes) for at in range(0, len(files), 100)]
        )
    found = {"predict": by_predict(project, files, classes), "pyfunc": by_pyfunc(project, files, classes)}
    with serving(project) as (port, _):
        found |= {name: ask(port, files, classes) for name, ask in SERVED.items()}
    if asked.onnx:
        found["ONNX Runtime"] = by_onnx(asked.onnx, files, classes)
    print(f"{len(files)} photographs, {len(classes)} classes\n")
    print("| door | same label | largest difference |\n| --- | ---: | ---: |")
    for name, rows in found.items():
        same = float((rows.argmax(axis=1) == expected.argmax(axis=1)).mean())
        print(f"| {name} | {same:.1%} | {np.abs(rows - expected).max():.1e} |")


if __name__ == "__main__":
    main()
