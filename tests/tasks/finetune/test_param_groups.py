import pytest
import timm
import torch
from torch import nn

from graft.tasks.finetune.param_groups import choose, groups, is_norm, is_transformer, thaw


def build(name="test_efficientnet"):
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=0)


def test_all_layers_take_gradients_by_default():
    model = build()
    choose(model, "all")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_norm_leaves_only_norm_layers_to_learn():
    for name in ("test_efficientnet", "test_convnext", "test_vit"):
        model = build(name)
        choose(model, "norm")
        norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters()}
        assert norms
        assert {id(p) for p in model.parameters() if p.requires_grad} == norms


def test_each_parameter_that_learns_is_in_one_group():
    model, last = build(), nn.Linear(4, 2)
    found = groups(model, last, layer_decay=0.5, weight_decay=0.1)
    listed = [id(p) for group in found for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in [*model.parameters(), *last.parameters()]}


def test_the_rate_falls_from_layer_to_layer():
    model, last = build(), nn.Linear(4, 2)
    found = groups(model, last, layer_decay=0.5, weight_decay=0.1)
    scales = [group["lr_scale"] for group in found]
    assert scales == sorted(scales, reverse=True)
    assert scales[0] == 1.0
    assert {0.5, 0.25} < set(scales)
    stem = next(group["lr_scale"] for group in found if any(p is model.conv_stem.weight for p in group["params"]))
    assert stem == min(scales)


def test_without_decay_all_layers_have_the_same_rate():
    found = groups(build(), nn.Linear(4, 2), layer_decay=1.0, weight_decay=0.1)
    assert {group["lr_scale"] for group in found} == {1.0}


def test_layers_thaw_from_the_last_to_the_first_in_the_first_half():
    found = groups(build(), nn.Linear(4, 2), layer_decay=0.5, weight_decay=0.1)
    counts = [sum(thaw(found, at)) for at in (0.0, 0.2, 0.4, 0.5, 1.0)]
    assert counts == sorted(counts)
    assert thaw(found, 0.0) == [group["lr_scale"] == 1.0 for group in found]
    assert all(thaw(found, 0.5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("test_vit", True), ("test_efficientnet", False), ("test_convnext", False), ("test_resnet", False)],
)
def test_a_network_is_a_transformer_if_most_of_it_is_in_blocks_with_attention(name, expected):
    assert is_transformer(timm.create_model(name, pretrained=False, num_classes=0)) == expected
