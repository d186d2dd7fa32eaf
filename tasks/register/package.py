"""The folder of the package: graph, head, facts, and the code that predicts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..common.backbones.graph import Graph
from ..common.core.files import write_json
from ..common.heads.base import Head
from ..common.heads.calibration import Calibration

MODULES = (
    "__init__.py",
    "common/__init__.py",
    "common/core/__init__.py",
    "common/engines/__init__.py",
    "common/heads/__init__.py",
    "common/images/__init__.py",
    "common/maps/__init__.py",
    "common/heads/calibration.py",
    "common/core/blocks.py",
    "common/core/cores.py",
    "common/engines/one_decode.py",
    "common/engines/openvino.py",
    "common/core/errors.py",
    "common/core/files.py",
    "common/heads/anomaly.py",
    "common/heads/base.py",
    "common/heads/decoder.py",
    "common/heads/gaussian.py",
    "common/heads/knn.py",
    "common/heads/linear.py",
    "common/heads/load.py",
    "common/heads/mean.py",
    "common/heads/mlp.py",
    "common/heads/patches.py",
    "common/heads/subspace.py",
    "common/heads/typicality.py",
    "common/images/decode.py",
    "common/images/deep.py",
    "common/images/formats.py",
    "common/images/limits.py",
    "common/images/palette.py",
    "common/images/reading.py",
    "common/images/sandbox.py",
    "common/images/sandbox_worker.py",
    "common/images/shard_index.py",
    "common/images/shard_members.py",
    "common/images/shard_names.py",
    "common/images/shards.py",
    "common/images/strips.py",
    "common/images/transform.py",
    "common/images/unreadable.py",
    "common/maps/form.py",
    "register/__init__.py",
    "register/packaged_eyes.py",
    "register/serving.py",
)
"""The modules of a packaged model, relative to `tasks`."""

REQUIREMENTS = ("mlflow", "numpy", "openvino", "pandas", "pillow", "safetensors")

_ENTRY = '''\
"""The entry of an MLflow model from code."""

import logging
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, MlflowException

from {code}.register.serving import ImageClassifier


NUMBERS = ("score", "p_value", "value", "low", "high", "typicality")
TYPES = {{"label": "str", **dict.fromkeys(("abstain", "anomalous"), "bool"), **dict.fromkeys(NUMBERS, "float64")}}
"""Of the columns that are no objects, which a table without rows cannot tell."""


class Model(mlflow.pyfunc.PythonModel):
    """Column `image` (bytes, or base64 as a string) in; out as ImageClassifier.predict says."""

    def load_context(self, context):
        self._classifier = ImageClassifier(Path(context.artifacts["package"]))

    def predict(self, context, model_input, params=None):
        columns = self._classifier.columns
        answers = self._answers(_images(model_input["image"]))
        return pd.DataFrame(answers, columns=columns).astype({{name: TYPES[name] for name in columns if name in TYPES}})

    def _answers(self, images):
        """MLflow's server hands the traceback of any other exception to the client."""
        try:
            return self._classifier.predict(images)
        except ValueError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        except Exception as error:
            logging.getLogger(__name__).exception("the prediction failed")
            raise MlflowException("the prediction failed; see the server's log", error_code=INTERNAL_ERROR) from error


def _images(column):
    """One entry an image: of {{"image": [...]}} MLflow makes a single row with a list in it."""
    return [image for entry in column for image in (entry if isinstance(entry, list) else [entry])]


mlflow.models.set_model(Model())
'''


def graph_names(graphs: int) -> list[str]:
    """Of the graphs in a package, without extension."""
    return ["graph"] if graphs == 1 else [f"graph-{number}" for number in range(graphs)]


def write_package(
    folder: Path, graphs: Sequence[Graph], head: Head, calibration: Calibration, facts: dict[str, Any]
) -> None:
    """Fills `folder`:

    graph.xml, graph.bin   the backbone, normalisation included; of several graph-0.xml, graph-0.bin, graph-1.xml, ...
    head.safetensors/json  the head
    calibration.json       the calibration of its probabilities, and the threshold for abstention
    package.json           the facts, with the transform of the images; see `packaged_eyes.eyes_in`
    requirements.txt       the packages that it needs
    code/<name>/           the code under a unique name, so that two models can be loaded at once
    model.py               the entry point of MLflow
    """
    for graph, name in zip(graphs, graph_names(len(graphs)), strict=True):
        for kind in (".xml", ".bin"):
            shutil.copyfile(graph.xml.with_suffix(kind), folder / f"{name}{kind}")
    head.save(folder)
    calibration.save(folder)
    write_json(folder / "package.json", facts)
    (folder / "requirements.txt").write_text(
        "".join(f"{name}=={version(name)}\n" for name in REQUIREMENTS), encoding="utf-8"
    )
    code = copy_code(folder / "code")
    (folder / "model.py").write_text(_ENTRY.format(code=code), encoding="utf-8")


def copy_code(target: Path) -> str:
    """Copies the code below `target` and returns the name of its Python package there."""
    tasks = Path(__file__).resolve().parent.parent
    sources = {module: (tasks / module).read_bytes() for module in MODULES}
    digest = hashlib.sha256(b"".join(sources.values())).hexdigest()[:12]
    name = f"graft_model_{digest}"
    for module, content in sources.items():
        file = target / name / module
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return name
