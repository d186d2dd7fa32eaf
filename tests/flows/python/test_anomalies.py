"""Predictions of a model that detects anomalies, in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import Project

import graft
from graft.flows.python.model import Model
from graft.tasks.common.core.errors import DataError
from graft.tasks.register.serving import ImageClassifier


@pytest.fixture(scope="module")
def model(anomalies: Path) -> Model:
    return Model("package", [], ImageClassifier(anomalies / "package"))


def test_the_table_has_score_p_value_and_verdict(model: Model, anomalies: Path) -> None:
    found = model.predict(anomalies / "defect")

    assert found.table.columns.tolist() == ["image", "score", "p_value", "anomalous"]
    assert found.table["anomalous"].tolist() == [True] * 4
    assert found.probabilities.shape == (4, 0)
    assert (found.table["score"] > found.threshold).all()
    with pytest.raises(DataError, match="have no maps"):
        found.heat_map(0)


def test_maps_are_arrays_and_pictures(model: Model, anomalies: Path) -> None:
    found = model.predict([anomalies / "good" / "01.png", anomalies / "defect" / "00.png"], maps=True)

    assert found.maps is not None
    assert found.maps.dtype == np.float32
    assert found.maps[1].max() > found.threshold > found.maps[0].max()
    assert found.heat_map(1).size == (90, 60)
    page = found._repr_html_()
    assert page.count("data:image/png") == 2
    assert "good" in page
    assert "anomalous" in page


def test_a_model_for_another_task_has_no_maps(finished: Project) -> None:
    with pytest.raises(DataError, match="maps=True"):
        graft.open(finished.root).predict(finished.root / "data" / "raw" / "red", maps=True)
