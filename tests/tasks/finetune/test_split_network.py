import pytest
import timm
import torch
from torch import nn

from graft.tasks.common.backbones.pooling import pooled
from graft.tasks.common.core.errors import ParamsError
from graft.tasks.finetune.param_groups import groups
from graft.tasks.finetune.split_network import Tail, cut, last_stage

SHAPE = (3, 160, 160)


def build(name):
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=0).eval()


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit", "test_mambaout", "test_byobnet"]
)
def test_trunk_and_tail_together_are_the_network(name):
    model = build(name)
    before = last_stage(model, SHAPE)
    trunk, tail = cut(model, before, SHAPE)
    x = torch.rand(3, *SHAPE)
    with torch.inference_mode():
        maps = trunk(x)
        assert maps.ndim == 2
        assert maps.shape[1] == torch.Size(tail.shape).numel()
        assert torch.allclose(tail(maps), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output", ["class_token", "patch_mean", "class_and_patch_mean"])
def test_a_network_whose_tokens_are_pooled_otherwise_is_cut_and_learns_like_all_others(output):
    model = pooled(build("test_vit"), "test_vit", output, SHAPE).eval()
    before = last_stage(model, SHAPE)
    trunk, tail = cut(model, before, SHAPE)
    x = torch.rand(2, *SHAPE)
    with torch.inference_mode():
        assert torch.allclose(tail(trunk(x)), model(x), rtol=1e-4, atol=1e-5)
    rates = [group["lr_scale"] for group in groups(tail, nn.Linear(4, 2), layer_decay=0.5, weight_decay=0.1)]
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    assert len(rates) > 2


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_the_last_stage_is_where_maps_are_smallest(name):
    model = build(name)
    seen = {}
    before = last_stage(model, SHAPE)
    hook = model.get_submodule(before).register_forward_hook(lambda m, x, y: seen.update(into=x[0].shape, out=y.shape))
    with torch.inference_mode():
        model(torch.zeros(1, *SHAPE))
    hook.remove()
    assert seen["out"][-1] < seen["into"][-1]


def test_a_network_of_tokens_is_cut_before_its_last_quarter():
    model = build("test_vit")
    assert last_stage(model, SHAPE) == f"blocks.{len(model.blocks) - 1}"


def test_the_tail_computes_nothing_of_what_is_before_the_cut():
    model = build("test_efficientnet")
    before = last_stage(model, SHAPE)
    _, tail = cut(model, before, SHAPE)
    names = {name.removeprefix("network.") for name, _ in tail.named_parameters()}
    assert names < {name for name, _ in model.named_parameters()}
    assert "conv_stem.weight" not in names
    assert any(name.startswith(before) for name in names)


def test_what_the_tail_learned_goes_back_into_the_network_and_nothing_else_changes():
    model = build("test_efficientnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _, tail = cut(model, last_stage(model, SHAPE), SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in tail.parameters():
            parameter.add_(1)
    trained = {name.removeprefix("network.") for name, _ in tail.named_parameters()}
    tail.into(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == trained


def test_a_network_whose_later_layers_take_more_than_the_maps_is_refused():
    class Twice(nn.Module):
        """Its last layer takes the stem's output too."""

        def __init__(self):
            super().__init__()
            self.stem, self.middle, self.last = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 2)

        def forward(self, x):
            early = self.stem(x)
            return (self.last(self.middle(early)) + self.last(early)).mean((2, 3))

    with pytest.raises(ParamsError, match=r"finetune.layers: last_stage(.|\n)*finetune.layers: all"):
        cut(Twice(), "last", (3, 16, 16))


def test_the_tail_takes_maps_flattened_or_not():
    model = build("test_resnet")
    tail = Tail(model, last_stage(model, SHAPE), SHAPE).eval()
    maps = torch.rand(2, *tail.shape)
    with torch.inference_mode():
        assert torch.equal(tail(maps), tail(maps.flatten(1)))
