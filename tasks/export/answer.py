"""An exported file asked in a process of its own: `python -m graft.tasks.export.answer FILE`.

Standard input has JSON with `images` (paths), `reading` and, for OpenVINO, `prepare`: the lines that a client resizes
with. Standard output has one JSON object an image, with `milliseconds` and the outputs of the file by
name, without images.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..common.images.decode import Pixels, pixels_of
from ..common.images.reading import Reading

Ask = Callable[[Any], dict[str, Any]]
"""From one picture, as `_picture` gives it, to the outputs by name."""


def main() -> None:
    asked = json.load(sys.stdin)
    file, reading = Path(sys.argv[1]), Reading.from_dict(asked["reading"])
    ask = openvino_session(file, asked["prepare"]) if file.suffix == ".xml" else onnx_session(file)
    for image in asked["images"]:
        with reading.file(Path(image)) as picture:
            pixels = pixels_of(picture)
        begun = time.perf_counter()
        found = ask(pixels)
        answer = {"milliseconds": 1000 * (time.perf_counter() - begun)}
        answer |= {name: value.tolist() for name, value in found.items() if np.ndim(value) < 3}
        print(json.dumps(answer), flush=True)


def onnx_session(file: Path) -> Ask:
    """With ONNX Runtime on the processor; it sends no telemetry."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(None, {"picture": pixels}), strict=True))


def openvino_session(file: Path, prepare: dict[str, str]) -> Ask:
    """In single precision: OpenVINO would choose a coarser one on processors that are faster with it.

    Args:
        prepare: by the name of each input, the lines of Python that define `prepare` for it.
    """
    import openvino as ov

    model = ov.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in model.outputs]
    functions = {name: _defined(lines) for name, lines in prepare.items()}

    def ask(pixels: Pixels) -> dict[str, Any]:
        found = model({name: function(pixels)[None] for name, function in functions.items()})
        return {name: found[place][0] for place, name in enumerate(names)}

    return ask


def _defined(lines: str) -> Callable[[Pixels], Pixels]:
    """The function `prepare` of our own template `prepare.py`."""
    space: dict[str, Any] = {}
    exec(lines, space)
    return space["prepare"]


if __name__ == "__main__":
    main()
