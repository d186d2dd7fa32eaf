"""The Open Inference Protocol, version 2: images as a tensor of BYTES, answers as one tensor for each column.

In JSON, an element is base64. With the extension for binary data, elements follow the JSON document, each after its
length (uint32, little endian); its length is in the header `Inference-Header-Content-Length`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .images import bounded, decoded, document_of, flat
from .refusal import Refusal
from .runner import Answer, Runner

INPUT = "image"
NUMBERS = ("score", "p_value", "typicality", "value", "low", "high")
TRUTHS = ("abstain", "anomalous")
LISTS = ("set", "labels")
TYPES = {"FP64": "<f8", "BOOL": "?"}


@dataclass(frozen=True)
class Inference:
    """A request.

    Attributes:
        wanted: the names of outputs; empty for all.
        binary: those to be sent as binary data.
    """

    id: str
    images: list[bytes | Refusal]
    wanted: list[str]
    binary: set[str]
    all_binary: bool


def read(body: bytes, header_length: str | None, max_bytes: int, most: int) -> Inference:
    """Raises:
    Refusal: it is not a request of this protocol.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    document = document_of(body[:length])
    images = _images(_input(document), body[length:], max_bytes, most)
    outputs = document.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(one, dict) and "name" in one for one in outputs):
        raise _malformed("`outputs` must be a list of objects with a name")
    binary = {str(one["name"]) for one in outputs if _parameters(one).get("binary_data")}
    return Inference(
        str(document.get("id", "")),
        images,
        [str(one["name"]) for one in outputs],
        binary,
        bool(_parameters(document).get("binary_data_output")),
    )


def _length(text: str, most: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12 or int(text) > most:
        raise _malformed("Inference-Header-Content-Length must be the number of bytes of the JSON document")
    return int(text)


def _input(document: Any) -> dict[str, Any]:
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _malformed(f"`inputs` must have one tensor, `{INPUT}`")
    if inputs[0].get("datatype") != "BYTES":
        raise _malformed("the datatype must be BYTES: each element an image file, in JSON as base64")
    shape = inputs[0].get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise _malformed("`shape` must be a list of sizes")
    return inputs[0]


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    found = of.get("parameters", {})
    return found if isinstance(found, dict) else {}


def _images(tensor: dict[str, Any], rest: bytes, max_bytes: int, most: int) -> list[bytes | Refusal]:
    if "binary_data_size" in _parameters(tensor):
        if _parameters(tensor)["binary_data_size"] != len(rest):
            raise _malformed("`binary_data_size` is not the number of bytes that follow")
        images = [bounded(content, max_bytes) for content in elements(rest, most)]
    else:
        values = list(flat(tensor.get("data", [])))
        _check_count(len(values), most)
        images = [decoded(value, max_bytes) for value in values]
    if len(images) != int(np.prod([float(size) for size in tensor["shape"]])):
        raise _malformed("`shape` does not have as many elements as the data")
    return images


def elements(data: bytes, most: int) -> list[bytes]:
    """Raises:
    Refusal: a length leads beyond the end, or there are too many.
    """
    found: list[bytes] = []
    place = 0
    while place < len(data):
        _check_count(len(found) + 1, most)
        size = struct.unpack_from("<I", data, place)[0] if place + 4 <= len(data) else len(data)
        if place + 4 + size > len(data):
            raise _malformed("an element of the binary data is cut off")
        found.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    return found


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise Refusal(413, f"the request has more than {most} images", "too_many")


def tensors(answers: Sequence[Answer], columns: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The outputs, one a column; lists of classes are JSON in BYTES."""
    return [_tensor(name, [answer[name] for answer in answers], classes) for name in columns]


def _tensor(name: str, values: list[Any], classes: Sequence[str]) -> dict[str, Any]:
    if name == "probabilities":
        data = [value[of] for value in values for of in classes]
        return {"name": name, "datatype": "FP64", "shape": [len(values), len(classes)], "data": data}
    if name in LISTS:
        values = [json.dumps(value, ensure_ascii=False) for value in values]
    return {"name": name, "datatype": _type(name), "shape": [len(values)], "data": values}


def _type(name: str) -> str:
    return "FP64" if name in NUMBERS else "BOOL" if name in TRUTHS else "BYTES"


def written(inference: Inference, runner: Runner, answers: Sequence[Answer]) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if binary data follow.

    Raises:
        Refusal: an output is wanted that the model does not have.
    """
    columns, classes = runner.classifier.columns, runner.classifier.classes
    unknown = [name for name in inference.wanted if name not in columns]
    if unknown:
        raise _malformed(f"the model has no output {unknown[0][:80]!r}, but {', '.join(columns)}")
    outputs = tensors(answers, inference.wanted or columns, classes)
    binary = [one for one in outputs if inference.all_binary or one["name"] in inference.binary]
    data = [_packed(one) for one in binary]
    document = {"model_name": runner.name, "model_version": runner.version, "outputs": outputs}
    text = json.dumps({**({"id": inference.id} if inference.id else {}), **document}, ensure_ascii=False).encode()
    return b"".join([text, *data]), len(text) if data else None


def _packed(tensor: dict[str, Any]) -> bytes:
    """Moves the data of a tensor out of its document."""
    values, kind = tensor.pop("data"), tensor["datatype"]
    if kind == "BYTES":
        data = b"".join(struct.pack("<I", len(one)) + one for one in (value.encode() for value in values))
    else:
        data = np.array(values, TYPES[kind]).tobytes()
    tensor["parameters"] = {"binary_data_size": len(data)}
    return data


def metadata(runner: Runner) -> dict[str, Any]:
    """Of the model."""
    of_classes = len(runner.classifier.classes)
    outputs = [
        {"name": name, "datatype": "FP64" if name == "probabilities" else _type(name),
         "shape": [-1, of_classes] if name == "probabilities" else [-1]}
        for name in runner.classifier.columns
    ]  # fmt: skip
    return {
        "name": runner.name,
        "versions": [runner.version] if runner.version else [],
        "platform": "graft",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
    }


def _malformed(reason: str) -> Refusal:
    return Refusal(400, reason, "malformed")
