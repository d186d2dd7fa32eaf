"""What the choice of an extractor asks of the weights."""

import json
from dataclasses import asdict

import pytest

from graft.tasks.common.backbones import fetch, network
from graft.tasks.common.backbones.spec import Spec
from graft.tasks.common.core.errors import WeightsError, WeightsUnreachable
from graft.tasks.common.core.paths import Paths
from graft.tasks.features.extractor import choose_extractor
from graft.tasks.features.params import FeaturesParams


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


# What the network sees

TINY, TESTED_LARGER = "test_efficientnet", "convnext_atto.d2_in1k"
"""The second was trained with 224 pixels, and timm tests it with 288."""


@pytest.fixture
def extractor(tmp_path):
    def choose(**changes):
        given = {"engine": "openvino", "precision": "f32", "weights": "random", "backbone": TINY, **changes}
        params = FeaturesParams(**given)
        return choose_extractor(params, 3, Paths(tmp_path), lambda spec: [])

    return choose


def digest_of(extractor):
    return extractor.fingerprint("float32")["digest"]


def test_the_default_crop_is_the_networks_own_and_has_its_fingerprint(extractor):
    own = extractor(crop="auto")
    assert own.spec.transform.crop_mode == "center"
    assert "crop" not in own.spec.form.__dataclass_fields__  # features from before `features.crop` are found again
    assert digest_of(own) == digest_of(extractor(crop="center")) == digest_of(extractor())


def test_another_crop_is_another_fingerprint_of_the_same_graph(extractor, tmp_path):
    found = {crop: extractor(crop=crop) for crop in ("auto", "squash", "border")}
    assert len({digest_of(one) for one in found.values()}) == 3
    assert [found[crop].spec.transform.crop_mode for crop in ("squash", "border")] == ["squash", "border"]
    assert len(list((tmp_path / ".graft/cache/graphs").iterdir())) == 1


def test_torch_shows_the_network_the_same(extractor):
    assert extractor(crop="border", engine="torch").spec == extractor(crop="border").spec


def test_weights_that_timm_tests_at_their_own_size_have_one_fingerprint(extractor):
    assert extractor().spec.form.image_size is None
    assert digest_of(extractor()) == digest_of(extractor(image_size="train"))


def test_weights_that_timm_tests_at_another_size_are_used_at_that_size(extractor):
    tested, trained = (extractor(backbone=TESTED_LARGER, image_size=size).spec for size in (None, "train"))
    assert (tested.transform.height, tested.transform.crop_pct, tested.form.image_size) == (288, 0.95, "test")
    assert (trained.transform.height, trained.transform.crop_pct, trained.form.image_size) == (224, 0.875, None)
    assert Spec.from_dict(json.loads(json.dumps(asdict(tested)))) == tested


def test_what_timm_says_of_the_size_is_asked_once(extractor, monkeypatch):
    first = extractor(backbone=TESTED_LARGER)
    monkeypatch.setattr(network, "tested_otherwise", lambda backbone: pytest.fail("timm was asked again"))
    assert digest_of(extractor(backbone=TESTED_LARGER)) == digest_of(first)


def test_the_numbers_of_a_size_keep_the_crop_of_pre_training(extractor):
    given = extractor(backbone=TESTED_LARGER, image_size=(288, 288)).spec.transform
    assert (given.height, given.crop_pct) == (288, 0.875)
