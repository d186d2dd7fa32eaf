"""What the tests of several stages share: generated images, one tiny network, one small project on which all ran."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import draw_squares, draw_tiles, made_once

from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.paths import STAGES, Paths
from graft.tasks.common.data.manifest import read_manifest, write_table

BACKBONE = "test_efficientnet"
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
SECTIONS = {
    "preprocess": {"val_fraction": 0.25, "test_fraction": 0.25},
    "features": {"backbone": BACKBONE, "weights": "random", "precision": "f32", "threads": 2},
    "head": {"folds": 0, "l2_max": 1.0, "strengths": 7},
    "audit": {"folds": 3, "curve_seeds": 1},
    "finetune": {"mode": "off", "layers": "all", "folds": 0},
    "evaluate": {"saliency": 2},
    "register": {"smoke_images": 4},
}


@pytest.fixture(scope="session")
def noise():
    """noise(width, height, seed, centre, spread) -> an RGB image that no other seed gives."""

    def make(width=32, height=32, seed=0, centre=(128, 128, 128), spread=60):
        shift = np.random.default_rng(seed).integers(-spread, spread + 1, (height, width, 3))
        return Image.fromarray((np.array(centre) + shift).clip(0, 255).astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def photo():
    """photo(width, height) -> an RGB image with edges, gradients and fine structure, as photographs have."""

    def make(width, height):
        y, x = np.mgrid[0:height, 0:width]
        red = 127 + 127 * np.sin(x / 3.0 + y / 17.0)
        green = 255 * (x + y) / (width + height)
        blue = np.where((x // 9 + y // 7) % 2 == 0, 230, 20)
        grain = np.random.default_rng(width * 10_000 + height).integers(-20, 21, (height, width, 3))
        return Image.fromarray((np.dstack([red, green, blue]) + grain).clip(0, 255).astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def fill_classes(noise):
    """fill_classes(folder, per_class) writes a folder a class of 32 x 32 images, each class of one colour."""

    def fill(folder: Path, per_class=10):
        for k, (name, colour) in enumerate(COLOURS.items()):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for n in range(per_class):
                noise(seed=1000 * k + n, centre=colour, spread=30).save(folder / name / f"{n:03}.png")

    return fill


@pytest.fixture(scope="session")
def run_stage():
    """run_stage(name, paths, key=value, ...) runs a stage's body with the tests' parameters, changed as told; `task` is
    for preprocess, and `runner` for features, which are told them beside their parameters."""

    def run(stage: str, paths: Paths, **changes):
        module = importlib.import_module(f"graft.tasks.{stage}.params")
        extra = [{}, changes.pop("task", "classification")] if stage == "preprocess" else []
        extra += [changes.pop("runner")] if "runner" in changes else []
        params = getattr(module, f"{stage.capitalize()}Params")(**{**SECTIONS[stage], **changes})
        return importlib.import_module(f"graft.tasks.{stage}.stage").run(params, paths, *extra)

    return run


@pytest.fixture(scope="session")
def random_weights():
    return find_weights(BACKBONE, "random", Path("data/weights"))


@pytest.fixture(scope="session")
def tiny_graph(tmp_path_factory, random_weights):
    """timm's smallest network with random weights, as a graph. For reading only."""

    def make(cache):
        backbone_graph(BACKBONE, random_weights, cache)

    return backbone_graph(BACKBONE, random_weights, made_once(tmp_path_factory, "tiny-graph", make)[0])


@pytest.fixture(scope="session")
def tiny_network(random_weights):
    """The same network in torch."""
    from graft.tasks.common.backbones import network

    return network.create(BACKBONE, random_weights)


@pytest.fixture(scope="session")
def finished_paths(tmp_path_factory, tiny_graph, fill_classes, run_stage):
    """A project on which every stage has run once. For reading only: a test that changes something takes `paths`."""
    paths = Paths(tmp_path_factory.mktemp("finished"))
    fill_classes(paths.raw)
    shutil.copytree(tiny_graph.xml.parent.parent, paths.cache / "graphs")
    for stage in STAGES:
        run_stage(stage, paths)
    return paths


@pytest.fixture(scope="session")
def inspected_paths(tmp_path_factory, tiny_graph, run_stage):
    """A project that detects anomalies, on which every stage has run once; validation has no defect. For reading
    only."""
    paths = Paths(tmp_path_factory.mktemp("inspected"))
    draw_tiles(paths.raw)
    shutil.copytree(tiny_graph.xml.parent.parent, paths.cache / "graphs")
    for stage in STAGES:
        run_stage(stage, paths, **({"task": "anomaly"} if stage in ("preprocess", "head") else {}))
    return paths


@pytest.fixture(scope="session")
def segmented_paths(tmp_path_factory, random_weights, run_stage):
    """A project that decodes masks of bright squares on noise, with weights from a file, on which every stage has run
    once. For reading only."""
    from safetensors.torch import save_file

    from graft.tasks.common.backbones import network

    paths = Paths(tmp_path_factory.mktemp("segmented"))
    draw_squares(paths.raw)
    paths.weights.mkdir(parents=True)
    weights = paths.weights / f"{BACKBONE}.safetensors"
    save_file(network.create(BACKBONE, random_weights, seed=1).state_dict(), weights)
    changes = {
        "preprocess": {"task": "reconstruction"},
        "features": {"weights": str(weights), "image_size": 64},
        "head": {"task": "reconstruction", "target": "mask", "decoder_width": 8, "decoder_epochs": 25},
    }
    for stage in STAGES:
        run_stage(stage, paths, **changes.get(stage, {}))
    return paths


@pytest.fixture
def paths(finished_paths, tmp_path):
    """A copy of the finished project, to change."""
    return Paths(Path(shutil.copytree(finished_paths.root, tmp_path / "project")))


@pytest.fixture(scope="session")
def tuned_paths(finished_paths, tmp_path_factory, run_stage):
    """A project whose fine-tuning ran. For reading only."""
    paths = Paths(Path(shutil.copytree(finished_paths.root, tmp_path_factory.mktemp("tuned") / "project")))
    run_stage("finetune", paths, mode="on", epochs=2, batch_size=8, learning_rate=1e-3, precision="f32")
    return paths


@pytest.fixture(scope="session")
def tree_bytes():
    """tree_bytes(folder) -> path below it -> content."""

    def read(folder: Path) -> dict[str, bytes]:
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}

    return read


@pytest.fixture(scope="session")
def names_in():
    """names_in(folder) -> the names of what lies in it."""
    return lambda folder: {file.name for file in folder.iterdir()}


@pytest.fixture(scope="session")
def head_files():
    """What a head that was saved with its calibration consists of."""
    return {"head.safetensors", "head.json", "calibration.json"}


@pytest.fixture
def text_file(tmp_path):
    """text_file(name, text) -> a new file of that name with that text."""

    def write(name, text):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def repository():
    """Where the package `graft` lies, for processes that the tests start."""
    return Path(importlib.import_module("graft").__file__).parent.parent


@pytest.fixture(scope="session")
def mapped_paths(tmp_path_factory, tiny_graph, fill_classes, run_stage):
    """The images of the finished project as those of the task anomaly: one colour is good; with the features
    and maps of all. For reading only: a test that changes something takes `map_paths`."""
    paths = Paths(tmp_path_factory.mktemp("mapped"))
    fill_classes(paths.raw)
    shutil.copytree(tiny_graph.xml.parent.parent, paths.cache / "graphs")
    run_stage("preprocess", paths)
    table = read_manifest(paths.manifest)
    labels = table["label"].where(table["label"] != "green", "good")
    write_table(table.assign(task="anomaly", label=labels), paths.manifest / "manifest.parquet")
    run_stage("features", paths)
    return paths


@pytest.fixture
def map_paths(mapped_paths, tmp_path):
    """A copy of the project with maps, to change."""
    return Paths(Path(shutil.copytree(mapped_paths.root, tmp_path / "mapped")))
