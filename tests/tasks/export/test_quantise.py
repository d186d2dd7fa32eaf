"""Networks in 8 bits: accepted only if the loss is shown to be small, and nothing phones home."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra graft[onnx]")
pytest.importorskip("nncf", reason="needs the extra graft[int8]")

from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.export.facts import Origin
from graft.tasks.export.quantise import Exam, check_enough, check_loss, compared, quantised_package
from graft.tasks.export.write import export
from graft.tasks.register.serving import ImageClassifier

PROBE = """
import socket

def refuse(*arguments, **options):
    raise SystemExit(f"a connection to {arguments}")

socket.socket.connect = refuse
socket.create_connection = refuse
import graft.tasks.export.quantise, sys
import nncf, nncf.telemetry
import numpy as np, openvino as ov
from openvino import opset13 as op

x = op.parameter([-1, 8, 8, 3], ov.Type.f32)
weight = op.constant(np.ones((3, 4), np.float32))
model = ov.Model([op.matmul(x, weight, False, False)], [x], "model")
nncf.quantize(model, nncf.Dataset([np.ones((1, 8, 8, 3), np.float32)]), subset_size=1)
loaded = [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
print("silent", loaded, nncf.telemetry.telemetry.__class__.__module__.startswith("nncf.telemetry"))
"""


@pytest.fixture
def package(linear_head, package_of, graph_of):
    graph = graph_of("test_efficientnet")
    return package_of(linear_head("classification", graph.spec.dimension), [graph])


@pytest.fixture
def exam(package, pictures):
    """The labels are what the model says, so that it is always right before."""
    labels = [answer["label"] for answer in ImageClassifier(package).predict(pictures)]
    return Exam(pictures, pictures, labels, np.arange(len(pictures)), 60.0)


def test_quantising_opens_no_connection_and_loads_no_telemetry():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1].startswith("silent []"), done.stderr[-2000:]


def test_the_quantised_package_is_smaller_and_predicts_nearly_the_same(package, pictures, tmp_path):
    quantised_package(package, pictures, tmp_path / "small")

    before, after = (ImageClassifier(folder).features(pictures) for folder in (package, tmp_path / "small"))
    assert (tmp_path / "small" / "graph.bin").stat().st_size < 0.6 * (package / "graph.bin").stat().st_size
    assert not np.array_equal(after, before)
    assert np.corrcoef(after.ravel(), before.ravel())[0, 1] > 0.9


def test_an_accepted_export_says_how_it_was_tested(package, pictures, exam, tmp_path):
    done = export(package, tmp_path / "model.xml", "openvino", pictures, Origin("m"), exam)

    assert done.loss.images == 5
    assert done.loss.first == 1.0
    assert "Quantised to 8 bits: accuracy" in done.files[-1].read_text(encoding="utf-8")
    assert "| precision | int8 |" in done.files[-1].read_text(encoding="utf-8")


def test_too_few_images_are_refused_before_anything_is_quantised(package, pictures, exam, tmp_path):
    few = Exam(pictures, pictures, exam.labels, exam.unit_N, 1.0)

    with pytest.raises(GraftError, match=r"(?s)too few validation images.*more would tell"):
        export(package, tmp_path / "model.xml", "openvino", pictures, Origin("m"), few)
    assert not (tmp_path / "model.xml").exists()


def test_a_loss_is_refused_with_both_metrics(package, pictures, exam, tmp_path, linear_head):
    import shutil

    from graft.tasks.common.heads.load import load_head

    worse, head = shutil.copytree(package, tmp_path / "worse"), load_head(package)
    type(head)(-head.weight, -head.bias, head.classes, head.task).save(worse)

    with pytest.raises(GraftError, match=r"accuracy 0\.0% in 8 bits, 100\.0% before, on 5 validation images"):
        check_loss(compared(package, worse, exam), exam)


def test_a_class_that_the_model_does_not_know_is_named(package, pictures, exam):
    unknown = Exam(pictures, pictures, ["no such class", *exam.labels[1:]], exam.unit_N, 60.0)

    with pytest.raises(DataError, match="no such class"):
        check_enough(package, unknown)
