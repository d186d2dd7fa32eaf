"""`graft predict` with nodes of a real cluster: the same answers as on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cluster import Cluster
from projects import Project, draw

from graft.flows.serving.ahead import compute_ahead
from graft.flows.serving.known import known_features
from graft.flows.serving.loading import open_model
from graft.flows.serving.predict import Answer, predict
from graft.flows.serving.sources import Named


def test_nodes_compute_features_of_tracked_and_of_other_files_and_leave_out_what_cannot_be_read(
    project: Project, ray_cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    project.dvc("push", "data/raw")
    project.set("compute", engine="ray", address=ray_cluster.address)
    files = [project.root / "data" / "raw" / "red" / "000.png", *(tmp_path / f"{number}.png" for number in range(5))]
    for number, file in enumerate(files[1:]):
        draw(file, number % 3, 100 + number)
    (tmp_path / "text.png").write_bytes(b"no image")
    named = [Named(file.name, file) for file in [*files, tmp_path / "text.png"]]
    with open_model(str(project.root / "models" / "package"), project.root) as model:
        local = list(predict(model.classifier, named))
        shutil.rmtree(project.root / ".graft" / "cache" / "features")

        with known_features(model) as known:
            assert known is not None
            compute_ahead(model, named, known)
            assert len(known) == 6
            away = list(predict(model.classifier, named, known))

    assert [told(answer) for answer in away] == [told(answer) for answer in local]
    assert away[-1].error.startswith("not an image")
    said = capfd.readouterr().err
    assert "uploaded 6 images to the exchange" in said, "those that the DVC remote does not hold"
    assert not list((tmp_path / "store" / "graft" / "jobs").iterdir())


def told(answer: Answer) -> tuple[str, object, str]:
    return answer.source.name, answer.found, answer.error
