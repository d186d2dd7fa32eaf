"""An export from end to end: what is written, what it says of itself, and when nothing is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra graft[onnx]")

from PIL import Image

from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.load import load_head
from graft.tasks.export import proof, write
from graft.tasks.export.facts import Origin
from graft.tasks.export.proof import SINGLE
from graft.tasks.export.write import export
from graft.tasks.register.serving import ImageClassifier

FORMATS = {"onnx": "model.onnx", "openvino": "model.xml"}
ORIGIN = Origin("graft version 7", "0123.dir", "abcdef", ("apache-2.0",))


@pytest.fixture
def made(tmp_path, linear_head, package_of, graph_of, pictures):
    """made(kind, task, ...) -> (what `export` gives, the package)."""

    def make(kind, task="classification", backbones=("test_efficientnet",), calibration=None):
        graphs = [graph_of(name) for name in backbones]
        head = linear_head(task, sum(graph.spec.dimension for graph in graphs))
        package = package_of(head, graphs, calibration)
        return export(package, tmp_path / FORMATS[kind], kind, pictures, ORIGIN), package

    return make


def code_in(readme, language):
    return re.search(rf"```{language}\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)[1]


def run_python(readme):
    """What the Python of a README prints, in a process that cannot import Graft."""
    program = f"import sys\nsys.modules['graft'] = None\n{code_in(readme, 'python')}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=readme.parent, capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_the_file_agrees_with_the_package_and_its_readmes_python_too(made, tmp_path, pictures, kind, task):
    calibration = Calibration(margin=1.5, interval_confidence=0.9) if task == "regression" else None

    done, package = made(kind, task, calibration=calibration)

    assert done.proof.same == (None if task == "regression" else 1.0)
    assert done.proof.difference < (1e-2 if task == "regression" else 1e-3)
    shutil.copyfile(pictures[1], tmp_path / "picture.jpg")  # Pillow looks into the file
    (expected,) = ImageClassifier(package).predict([pictures[1]])
    printed = run_python(done.files[-1])
    if task == "classification":
        label, _, score = printed.rpartition(" ")
        assert (label, float(score)) == (expected["label"], pytest.approx(expected["score"], abs=2e-3))
    elif task == "multilabel":
        assert json.loads(printed.replace("'", '"')) == pytest.approx(expected["probabilities"], abs=2e-3)
    else:
        assert float(printed) == pytest.approx(expected["value"], rel=1e-2)


@pytest.mark.parametrize("kind", FORMATS)
def test_several_backbones_are_in_one_file(made, tmp_path, pictures, kind):
    done, _ = made(kind, backbones=("test_efficientnet", "test_resnet"))

    assert done.proof.holds(SINGLE)
    shutil.copyfile(pictures[0], tmp_path / "picture.jpg")
    assert run_python(done.files[-1]).startswith("class ")


def test_the_onnx_file_says_where_it_comes_from(made):
    import onnx

    done, package = made("onnx", calibration=Calibration(temperature=2.0, threshold=0.4, max_error=0.1))
    told = {entry.key: entry.value for entry in onnx.load(done.files[0]).metadata_props}

    assert json.loads(told["classes"]) == ["class 0", "class 1", "class 2"]
    assert json.loads(told["calibration"])["temperature"] == 2.0
    assert (told["model"], told["data"], told["git_commit"]) == ("graft version 7", "0123.dir", "abcdef")
    assert (told["task"], told["licence"]) == ("classification", "apache-2.0")
    assert told["weights_sha256"] == json.loads((package / "package.json").read_text())["weights_sha256"]


def test_the_openvino_file_says_the_same(made):
    import openvino as ov

    done, _ = made("openvino")
    model = ov.Core().read_model(done.files[0])

    assert json.loads(model.get_rt_info(["graft", "classes"]).astype(str)) == ["class 0", "class 1", "class 2"]
    assert model.get_rt_info(["graft", "git_commit"]).astype(str) == "abcdef"
    assert [file.name for file in done.files] == ["model.xml", "model.bin", "model.xml.README.md"]


def test_the_readme_has_code_for_three_languages_and_the_proof(made):
    done, _ = made("onnx")
    text = done.files[-1].read_text(encoding="utf-8")

    assert "the same label for 100.00% of 5 images" in text
    assert [language for language in ("python", "javascript", "cpp") if f"```{language}" in text] == [
        "python",
        "javascript",
        "cpp",
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_differs_is_not_written(tmp_path, linear_head, package_of, graph_of, pictures, monkeypatch, kind):
    graph = graph_of("test_efficientnet")
    package = package_of(linear_head("classification", graph.spec.dimension), [graph])
    right = write.read_parts

    def wrong(folder):
        parts = right(folder)
        return replace(parts, head=replace(parts.head, weight=-parts.head.weight))

    monkeypatch.setattr(write, "read_parts", wrong)

    with pytest.raises(GraftError, match=r"(?s)does not predict the same.*difference of a probability 0?\.?[1-9]"):
        export(package, tmp_path / FORMATS[kind], kind, pictures, ORIGIN)
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(("model", ".graft"))]


def test_a_picture_that_cannot_be_read_is_named_and_nothing_is_written(made, tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(proof, "AT_ONCE", 2)
    pictures.append(tmp_path / "text.png")
    pictures[-1].write_text("no picture")

    with pytest.raises(DataError, match=r"text\.png: input 1 is not an image"):
        made("onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_grey_model_takes_pictures_of_one_channel(tmp_path, linear_head, package_of, photo):
    from pathlib import Path

    from graft.tasks.common.backbones.graph import backbone_graph
    from graft.tasks.common.backbones.spec import Form
    from graft.tasks.common.backbones.weights import find_weights

    weights = find_weights("test_efficientnet", "random", Path("data/weights"))
    graph = backbone_graph("test_efficientnet", weights, tmp_path / "cache", Form(channels=1))
    package = package_of(linear_head("classification", graph.spec.dimension), [graph], channels=1)
    photo(90, 70).convert("L").save(tmp_path / "picture.png")

    done = export(package, tmp_path / "model.onnx", "onnx", [tmp_path / "picture.png"], ORIGIN)

    assert done.proof.holds(SINGLE)
    Image.open(tmp_path / "picture.png").save(tmp_path / "picture.jpg", format="PNG")
    assert run_python(done.files[-1]).startswith("class ")


@pytest.mark.parametrize(("kind", "name"), [("onnx", "model.xml"), ("openvino", "model.onnx"), ("onnx", "no/m.onnx")])
def test_a_name_that_does_not_fit_is_refused(tmp_path, kind, name):
    with pytest.raises(GraftError):
        export(tmp_path / "package", tmp_path / name, kind, [], ORIGIN)


def test_an_export_into_the_package_is_refused(made, tmp_path, pictures):
    _, package = made("onnx")

    with pytest.raises(GraftError, match="change the package"):
        export(package, package / "graph.xml", "openvino", pictures, ORIGIN)


def test_a_damaged_package_is_refused(made, tmp_path, pictures):
    _, package = made("onnx")
    (package / "head.safetensors").write_bytes(b"damaged")

    with pytest.raises(DataError, match="not a package that can be read"):
        export(package, tmp_path / "again.onnx", "onnx", pictures, ORIGIN)


@pytest.mark.parametrize("name", ["../graph", "no-graph"])
def test_a_package_whose_graph_lies_elsewhere_is_refused(made, tmp_path, pictures, name):
    _, package = made("onnx")
    shutil.copyfile(package / "graph.xml", tmp_path / "graph.xml")
    facts = json.loads((package / "package.json").read_text())
    eye = {"graph": name, "precision": facts["precision"], "transform": facts["transform"]}
    (package / "package.json").write_text(json.dumps({**facts, "eyes": [eye]}))

    with pytest.raises(DataError, match="names a graph that is not in the folder"):
        export(package, tmp_path / "again.onnx", "onnx", pictures, ORIGIN)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_finished_project_and_a_fine_tuned_one_can_be_exported(finished_paths, tuned_paths, tmp_path, kind):
    for paths in (finished_paths, tuned_paths):
        files = sorted(paths.raw.rglob("*.png"))[:6]

        done = export(paths.package, tmp_path / FORMATS[kind], kind, files, ORIGIN)

        assert done.proof.holds(SINGLE)
        assert done.proof.typicality is not None


def test_the_heads_arrays_are_what_the_file_has(made):
    import onnx
    from onnx import numpy_helper

    done, package = made("onnx")
    arrays = [numpy_helper.to_array(each) for each in onnx.load(done.files[0]).graph.initializer]

    assert any(np.array_equal(each, load_head(package).weight) for each in arrays)
