import pytest
import torch

from graft.flows.backbones.anatomy import dissect, facts_of
from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.weights import WeightsSource

RANDOM = WeightsSource("random", "seed 0")


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "vgg16", "resnet50", "densenet121", "vit_tiny_patch16_224", "twins_pcpvt_small"]
)
def test_stages_add_up_to_the_whole_network(name):
    parts = dissect(name)
    counted = sum(stage["parameters"] for stage in parts["stages"])
    assert counted + parts["outside"] == facts_of(name)["parameters"]
    assert counted > 0.9 * facts_of(name)["parameters"]


def test_facts_are_those_of_the_network_that_runs(tiny_network):
    facts, transform = facts_of("test_efficientnet"), network.eval_transform(tiny_network)
    with torch.inference_mode():
        features = tiny_network(torch.zeros(1, 3, 160, 160))
    assert facts["features"] == features.shape[1]
    assert facts["input"] == [transform.height, transform.width]
    assert facts["mean"] == list(transform.mean)


def test_the_input_is_that_with_which_timm_tests_the_weights():
    facts = facts_of("convnext_atto.d2_in1k")
    assert (facts["input"], facts["trained"], facts["crop"]) == ([288, 288], [224, 224], 0.95)
    assert dissect("convnext_atto.d2_in1k")["stages"][0]["output"][1:] == [72, 72]


def test_layers_of_one_size_are_one_stage():
    stages = dissect("resnet50.tv_in1k")["stages"]
    assert [(stage["first"], stage["last"]) for stage in stages[1:3]] == [("maxpool", "layer1"), ("layer2", "layer2")]
    assert [stage["output"] for stage in stages[1:3]] == [[256, 56, 56], [512, 28, 28]]


def test_the_hidden_layers_of_a_classifier_are_what_pooled_features_do_without():
    parts = dissect("vgg16")
    assert parts["classifier"] == {"head.fc": [1000, 4096]}
    assert list(parts["hidden"]) == ["pre_logits.fc1", "pre_logits.fc2"]
    assert (facts_of("vgg16")["features"], parts["pooled"]) == (4096, 512)
    assert dissect("resnet50")["hidden"] == {}


@pytest.mark.parametrize(
    ("name", "classifiers"),
    [("deit_tiny_distilled_patch16_224", ["head", "head_dist"]), ("vit_small_patch14_dinov2.lvd142m", [])],
)
def test_a_network_may_have_two_classifiers_or_none(name, classifiers):
    assert list(dissect(name)["classifier"]) == classifiers


def test_tokens_are_not_maps_of_places():
    assert dissect("vit_tiny_patch16_224")["pooled"] is None
