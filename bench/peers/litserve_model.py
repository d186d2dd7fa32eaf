"""The packaged model behind LitServe, with its batching: the same decoding, engine and answers as Graft's server.

python bench/peers/litserve_model.py PACKAGE PORT
"""

import sys
from pathlib import Path
from typing import Any

import litserve

from graft.tasks.register.serving import ImageClassifier


class Packaged(litserve.LitAPI):  # type: ignore[misc]
    """A batch is decoded in the worker that predicts; LitServe has no threads for it."""

    def __init__(self, package: Path) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.003)
        self._package = package

    def setup(self, device: str) -> None:
        self._model = ImageClassifier(self._package)

    def decode_request(self, request: dict[str, str]) -> str:
        return request["image"]

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, images: list[str]) -> list[dict[str, Any]]:
        return self._model.predict(images)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    litserve.LitServer(Packaged(Path(sys.argv[1])), accelerator="cpu", workers_per_device=1).run(
        port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False
    )
