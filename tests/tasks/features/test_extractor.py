"""What the choice of an extractor asks of the weights."""

import pytest

from tasks.common.backbones import fetch
from tasks.common.core.errors import WeightsError, WeightsUnreachable
from tasks.common.core.paths import Paths
from tasks.features.extractor import choose_extractor
from tasks.features.params import FeaturesParams


@pytest.fixture
def notop(tmp_path, monkeypatch):
    """All that is here of VGG16: Keras' file without the classifier. Keras' server is not there."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "KERAS_FILES", "http://127.0.0.1:9/")
    file = tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    return file


def test_keras_weights_of_vgg_without_its_top_are_fetched_whole_for_features_before_the_classifier(notop, tmp_path):
    params = FeaturesParams(backbone="VGG16", weights="keras", engine="openvino")
    with pytest.raises(WeightsUnreachable) as refused:
        choose_extractor(params, 3, Paths(tmp_path), lambda spec: [])
    assert f"keras-applications/vgg16/{notop.name.replace('_notop', '')}" in refused.value.todo


def test_a_file_without_the_top_will_do_for_the_last_maps_of_vgg(notop, tmp_path):
    params = FeaturesParams(backbone="VGG16", weights="keras", engine="openvino", output="pooled")
    with pytest.raises(WeightsError, match=notop.name):  # it is read; there is nothing in it
        choose_extractor(params, 3, Paths(tmp_path), lambda spec: [])
