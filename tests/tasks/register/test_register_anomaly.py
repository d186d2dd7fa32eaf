"""What register makes of a project that detects anomalies."""

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.maps.maps import open_maps
from graft.tasks.register.reference_set import Reference
from graft.tasks.register.serving import ImageClassifier


@pytest.fixture(scope="module")
def paths(inspector):
    return Paths(inspector.root)


@pytest.fixture(scope="module")
def maps(paths):
    return open_maps(read_feature_set(paths.features), paths)


def test_the_package_says_what_its_maps_are(paths, maps):
    facts = read_json(paths.package / "package.json")

    assert facts["fingerprint"] == maps.fingerprint["digest"]
    assert ImageClassifier(paths.package).eyes.form == maps.form
    assert (facts["predicts"], facts["classes"]) == (["score", "p_value", "anomalous"], [])
    assert read_json(paths.metrics("register"))["largest_difference"] <= 1e-4


def test_the_reference_is_the_means_of_the_training_images_maps(paths, maps):
    found, rows = Reference.load(paths.package), maps.pack.rows("train")

    assert found.fingerprint == maps.fingerprint["digest"]
    assert np.allclose(found.features_nD, maps.form.means(maps.read(rows)), atol=1e-5)


def test_answers_are_those_that_evaluate_saw(paths):
    seen = pd.read_parquet(paths.report / "predictions.parquet")

    answers = pd.DataFrame(ImageClassifier(paths.package).predict([paths.raw / path for path in seen["path"]]))

    assert np.allclose(answers["score"], seen["score"], rtol=1e-4)
    assert np.allclose(answers["p_value"], seen["p_value"], atol=1e-9)
    assert answers["anomalous"].tolist() == seen["anomalous"].tolist()
