"""The networks beyond the Keras table, compared with the installed timm."""

import pytest
import timm

from graft.tasks.common.backbones import licences
from graft.tasks.common.backbones.catalogue import CATALOGUE, entry_of, short_names, timm_name
from graft.tasks.common.backbones.modern import LITE, MODERN, modern_of
from graft.tasks.common.backbones.weights import PACKAGES

ALL = (*MODERN, *LITE)


def named(entry):
    return entry.name


@pytest.mark.parametrize("entry", ALL, ids=named)
def test_its_weights_are_timms(entry):
    assert timm.get_pretrained_cfg(entry.timm).has_weights
    assert not entry.tuned or entry.tuned in timm.list_pretrained()


@pytest.mark.parametrize("entry", ALL, ids=named)
def test_its_licence_is_the_one_that_timm_states(entry):
    assert entry.licence == licences.licence_in_timm(entry.timm)


@pytest.mark.parametrize("entry", ALL, ids=named)
def test_it_is_found_by_its_short_name_and_by_timms_name(entry):
    assert modern_of(entry.name.lower()) is modern_of(entry.timm) is entry
    assert timm_name(entry.name, "auto") == timm_name(entry.timm, "auto") == entry.timm


def test_names_are_there_once():
    names = [name.lower() for name in short_names()]
    assert len(set(names)) == len(names) == len(CATALOGUE) + len(ALL)
    assert all(entry_of(entry.timm) is None for entry in ALL)


def test_other_weights_of_a_listed_architecture_are_not_taken_for_the_listed_ones():
    assert modern_of("convnext_tiny.fb_in1k") is None
    assert timm_name("convnext_tiny", "auto") == "convnext_tiny"


def test_the_networks_of_the_packages_are_listed_with_or_without_the_tag():
    assert [entry.timm for entry in LITE] == list(PACKAGES)
    assert modern_of("tf_efficientnet_lite0.in1k") is modern_of("tf_efficientnet_lite0")


@pytest.mark.parametrize("entry", ALL, ids=named)
def test_accuracies_are_of_weights_that_know_the_thousand_classes(entry):
    for name, (top1, top5) in entry.published.items():
        assert timm.get_pretrained_cfg(name).num_classes == 1000
        assert 70 < top1 < top5 < 100


@pytest.mark.parametrize("entry", ALL, ids=named)
def test_a_recommended_size_is_smaller_and_made_of_whole_patches(entry):
    if entry.image_size is not None:
        assert entry.image_size < timm.get_pretrained_cfg(entry.timm).input_size[1]
        assert entry.image_size % 14 == 0
