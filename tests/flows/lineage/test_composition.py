"""What an execution was made of, from the tags of its runs."""

from types import SimpleNamespace
from typing import Any

import pytest

from graft.flows.lineage.composition import _backbone


def run(**tags: str) -> Any:
    return SimpleNamespace(data=SimpleNamespace(tags=tags))


@pytest.mark.parametrize(
    ("features", "licence"),
    [
        pytest.param(run(licence="cc-by-nc-4.0 (non-commercial)"), "cc-by-nc-4.0 (non-commercial)", id="stated"),
        pytest.param(run(weights_sha256="0"), "", id="from before licences were recorded"),
        pytest.param(None, "", id="no run of features"),
    ],
)
def test_the_licence_of_the_weights_is_that_of_the_features_run(features: Any, licence: str) -> None:
    assert _backbone(features, {"backbone": "convnextv2_tiny.fcmae"}, {})["licence"] == licence
