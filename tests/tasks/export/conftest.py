"""Small packages of any task, with random heads on tiny networks, and what runs an ONNX graph."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.images.reading import Reading
from graft.tasks.register.package import graph_names, write_package


@pytest.fixture(scope="session")
def graph_of(tmp_path_factory):
    """graph_of(backbone) -> its graph, with random weights."""
    cache = tmp_path_factory.mktemp("graphs")
    return lambda name: backbone_graph(name, find_weights(name, "random", Path("data/weights")), cache)


@pytest.fixture(scope="session")
def linear_head():
    """linear_head(task, D, K=3) -> a head with random weights."""

    def make(task, dimension, classes=3):
        rng, names = np.random.default_rng(dimension), [f"class {k}" for k in range(classes)]
        rows = 1 if task == "regression" else classes
        weight, bias = rng.normal(0, 1, (rows, dimension)), rng.normal(0, 1, rows)
        known = [] if task == "regression" else names
        return LinearHead(weight.astype(np.float32), bias.astype(np.float32), known, task)

    return make


@pytest.fixture
def package_of(tmp_path):
    """package_of(head, graphs, calibration) -> the folder of a package; its images are `photo`s."""

    def make(head, graphs, calibration=None, channels=3):
        eyes = [{"precision": "f32", "transform": asdict(graph.spec.transform)} for graph in graphs]
        named = [
            {"graph": name, "backbone": graph.spec.backbone, "weights": graph.spec.weights, **eye}
            for name, graph, eye in zip(graph_names(len(graphs)), graphs, eyes)
        ]
        facts = {
            "task": head.task,
            "classes": head.classes,
            "backbone": graphs[0].spec.backbone,
            "weights": graphs[0].spec.weights,
            "weights_sha256": graphs[0].spec.weights_sha256,
            "fingerprint": "0123",
            "candidate": "head",
            "reading": Reading(channels).as_dict(),
            **(eyes[0] if len(graphs) == 1 else {"eyes": named}),
        }
        folder = tmp_path / "package"
        folder.mkdir()
        write_package(folder, graphs, head, calibration or Calibration(), facts)
        return folder

    return make


@pytest.fixture
def pictures(tmp_path, photo):
    """Files of several sizes."""
    files = []
    for number, size in enumerate([(48, 64), (200, 120), (33, 91), (160, 160), (300, 40)]):
        files.append(tmp_path / f"{number}.png")
        photo(*size).save(files[-1])
    return files


@pytest.fixture(scope="session")
def run_onnx():
    """run_onnx(build, {name: array}, value, like) -> the value that a built graph computes, with the type and shape of
    `like`; float64 as float32."""

    def run(build, given, value, like):
        import onnxruntime
        from onnx import helper

        def described(name, array):
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

        build.name(value, "out")
        wanted = like.astype(np.float32) if like.dtype == np.float64 else like
        model = build.model([described(*each) for each in given.items()], [described("out", wanted)], {})
        return onnxruntime.InferenceSession(model.SerializeToString()).run(["out"], given)[0]

    return run
