"""Models that detect anomalies, as files."""

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

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.gaussian import GaussianHead
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.heads.subspace import SubspaceHead
from graft.tasks.export import anomalies as module
from graft.tasks.export.answers import answers_of
from graft.tasks.export.builder import Builder
from graft.tasks.export.facts import Origin
from graft.tasks.export.quantise import Exam
from graft.tasks.export.write import export
from graft.tasks.register.packaged_eyes import halved
from graft.tasks.register.serving import ImageClassifier

FORMATS = {"onnx": "model.onnx", "openvino": "model.xml"}
ORIGIN = Origin("graft version 7", "0123.dir", "abcdef", ("apache-2.0",))


def images(folder):
    return [*sorted((folder / "good").iterdir())[:12], *sorted((folder / "defect").iterdir())]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_file_answers_as_the_package_does_and_its_readmes_python_too(anomalies, tmp_path, kind):
    package, pictures = anomalies / "package", images(anomalies)

    done = export(package, tmp_path / FORMATS[kind], kind, pictures, ORIGIN)

    assert done.proof.same == 1.0
    assert done.proof.difference < 1e-2
    assert done.proof.what == "score"
    shutil.copyfile(pictures[-1], tmp_path / "picture.jpg")  # Pillow looks into the file
    (expected,) = ImageClassifier(package).predict([pictures[-1]])
    text = done.files[-1].read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    told = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.modules['graft'] = None\n{program}"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ}, check=True,
    )  # fmt: skip
    verdict, score, p_value = told.stdout.split()
    assert (verdict, float(score)) == (str(expected["anomalous"]), pytest.approx(expected["score"], rel=1e-3))
    assert float(p_value) == pytest.approx(expected["p_value"], abs=1e-6)


@pytest.fixture(scope="module")
def patches(anomalies):
    return load_head(anomalies / "package")


@pytest.fixture(scope="module")
def subspace(patches):
    named = {name: getattr(patches, name) for name in ("mean", "share", "channels", "height", "width", "top")}
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(patches.channels, 5)))[0].astype(np.float32)
    return SubspaceHead(turn, good=np.sort(patches.good), classes=[], **named)


@pytest.fixture(scope="module")
def gaussian(patches):
    """At fewer places than the maps', of some of their channels."""
    shape = (max(1, patches.height // 2), patches.width, max(1, patches.channels // 2))
    named = {name: getattr(patches, name) for name in ("share", "channels", "height", "width", "top")}
    mean, turn = np.random.default_rng(0).normal(size=shape), np.random.default_rng(1).normal(size=(*shape, shape[2]))
    single = (mean.astype(np.float32), turn.astype(np.float32))
    return GaussianHead(*single, good=np.sort(patches.good), classes=[], **named)


@pytest.mark.parametrize("kind", ["gaussian", "patches", "subspace"])
def test_scores_p_values_and_maps_are_the_heads(kind, request, run_onnx):
    head = request.getfixturevalue(kind)
    maps_ND = halved(np.random.default_rng(1).normal(0, 1, (3, head.dimension)).astype(np.float32))
    score_N = head.output(maps_ND)[:, 0]
    head = replace(head, good=np.sort(np.append(score_N[1:], score_N[0] + 1)), share=np.array([1.0, 0.5, 0.5]))
    threshold = float(np.sort(score_N)[1]) + 1e-3
    expected = {
        "score": score_N,
        "p_value": head.p_values(score_N),
        "anomalous": score_N > threshold,
        "map": head.patch_scores(maps_ND),
    }

    for place, name in enumerate(expected):
        build = Builder()
        answer = answers_of(build, head, Calibration(threshold=threshold), None, "features")[place]
        found = run_onnx(build, {"features": maps_ND}, answer.value, expected[name])
        assert answer.name == name
        assert np.allclose(found, expected[name], rtol=1e-3, atol=0.6 if name == "p_value" else 1e-3)


def test_a_bank_that_is_too_large_is_refused(anomalies, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)

    with pytest.raises(GraftError, match="too large to be searched"):
        export(anomalies / "package", tmp_path / "model.onnx", "onnx", images(anomalies), ORIGIN)

    assert list(tmp_path.iterdir()) == []


def test_eight_bits_are_refused(anomalies, tmp_path):
    exam = Exam([], [], [], np.empty(0, np.int64), 1.0)

    with pytest.raises(GraftError, match="not exported in 8 bits"):
        export(anomalies / "package", tmp_path / "model.xml", "openvino", images(anomalies), ORIGIN, exam)
