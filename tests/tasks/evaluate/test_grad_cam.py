"""A network that sees one thing, in images where it is known to be."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.heads.knn import NeighbourHead
from graft.tasks.common.heads.linear import LinearHead
from graft.tasks.common.heads.mlp import MlpHead
from graft.tasks.evaluate.grad_cam import NoMaps, grad_cam, with_maps


class Bright(nn.Module):
    """A network of timm's form whose two features are the brightness and the darkness of 8 x 8 pixels, pooled."""

    num_features = 2

    def forward_features(self, x_BCHW):
        bright_B1hw = nn.functional.avg_pool2d(x_BCHW.mean(1, keepdim=True), 8)
        return torch.cat([bright_B1hw, -bright_B1hw], dim=1).relu()

    def forward_head(self, maps_B2hw):
        return maps_B2hw.mean((2, 3))

    def forward(self, x_BCHW):
        return self.forward_head(self.forward_features(x_BCHW))


class ChannelsLast(Bright):
    """As Swin has its maps."""

    def forward_features(self, x_BCHW):
        return super().forward_features(x_BCHW).permute(0, 2, 3, 1)

    def forward_head(self, maps_Bhw2):
        return maps_Bhw2.mean((1, 2))


class Tokens(Bright):
    """A token that stands for no place, and then one a place, which are pooled."""

    num_prefix_tokens = 1

    def forward_features(self, x_BCHW):
        places_BT2 = super().forward_features(x_BCHW).flatten(2).transpose(1, 2)
        return torch.cat([torch.zeros_like(places_BT2[:, :1]), places_BT2], dim=1)

    def forward_head(self, tokens_BT2):
        return tokens_BT2[:, 1:].mean(1)


class Gather(nn.Module):
    """A block by which the first token gets the mean of the others."""

    def __init__(self):
        super().__init__()
        self.norm1 = nn.Identity()

    def forward(self, tokens_BT2):
        seen_BT2 = self.norm1(tokens_BT2)
        return torch.cat([seen_BT2[:, 1:].mean(1, keepdim=True), tokens_BT2[:, 1:]], dim=1)


class ClassToken(Tokens):
    """Of whose tokens only the first is used."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Gather())

    def forward_features(self, x_BCHW):
        return self.blocks(super().forward_features(x_BCHW))

    def forward_head(self, tokens_BT2):
        return tokens_BT2[:, 0]


SIZE = (3, 64, 96)
SPOTS = {"bright": (slice(8, 16), slice(72, 80)), "dark": (slice(40, 48), slice(16, 24))}
HEAD = LinearHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), list(SPOTS))


@pytest.fixture
def spotted():
    """Grey images with a bright spot at one place and a dark one at another."""
    x_BCHW = torch.zeros(2, *SIZE)
    for value, (rows, columns) in zip((1.0, -1.0), SPOTS.values()):
        x_BCHW[:, :, rows, columns] = value
    return x_BCHW


@pytest.mark.parametrize("kind", [Bright, ChannelsLast, Tokens, ClassToken])
def test_the_heat_is_where_the_thing_is_that_speaks_for_the_class(spotted, kind):
    heats = grad_cam(with_maps(kind(), HEAD, SIZE), spotted, [0, 1])
    for map_HW, (rows, columns) in zip(heats, SPOTS.values()):
        assert map_HW.shape == SIZE[1:]
        assert map_HW[rows, columns].mean() > 0.6
        top, left = np.unravel_index(map_HW.argmax(), map_HW.shape)
        assert rows.start <= top < rows.stop
        assert columns.start <= left < columns.stop
        assert map_HW.sum() < 4 * map_HW[rows, columns].sum(), "and hardly anywhere else"


def test_an_image_in_which_nothing_speaks_for_the_class_stays_cold():
    (map_HW,) = grad_cam(with_maps(Bright(), HEAD, SIZE), torch.full((1, *SIZE), -1.0), [0])
    assert not map_HW.any()


def test_a_head_with_hidden_units_is_looked_through(spotted):
    hidden = np.float32([[1, 0], [0, 1], [1, 1]])
    head = MlpHead(
        hidden, np.zeros(3, np.float32), np.float32([[1, 0, 0], [0, 1, 0]]), np.zeros(2, np.float32), ["a", "b"]
    )
    linear = grad_cam(with_maps(Bright(), HEAD, SIZE), spotted, [0, 1])
    for map_HW, expected_HW in zip(grad_cam(with_maps(Bright(), head, SIZE), spotted, [0, 1]), linear):
        assert np.allclose(map_HW, expected_HW, atol=1e-6)


def test_votes_of_neighbours_have_no_place():
    unit_MD, codes_M = np.eye(2, dtype=np.float16), np.int32([0, 1])
    head = NeighbourHead(unit_MD, codes_M, np.ones(2, np.float32), k=1, temperature=0.1, classes=["a", "b"])
    with pytest.raises(NoMaps, match="neighbours"):
        with_maps(Bright(), head, SIZE)


def made(backbone, random_weights, form):
    """A network of random numbers and a head on it that sees two features."""
    model = network.create(backbone, random_weights, form)
    with torch.no_grad():
        dimension = model(torch.zeros(1, form.channels, *form.image_size)).shape[1]
    weight_KD = np.random.default_rng(0).normal(size=(3, dimension)).astype(np.float32)
    return model, LinearHead(weight_KD, np.zeros(3, np.float32), ["a", "b", "c"])


@pytest.mark.parametrize(
    "backbone",
    ["test_efficientnet", "test_resnet", "test_convnext", "test_vit", "test_vit3", "test_mambaout", "test_nfnet"],
)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_networks_of_maps_and_of_tokens_give_a_map_of_the_images_size(random_weights, backbone, channels):
    form = Form(channels=channels, image_size=(160, 160))
    model, head = made(backbone, random_weights, form)
    x_BCHW = torch.from_numpy(np.random.default_rng(1).normal(size=(3, channels, 160, 160)).astype(np.float32))
    heats = grad_cam(with_maps(model, head, (channels, 160, 160)), x_BCHW, [0, 1, 2])
    assert [map_HW.shape for map_HW in heats] == [(160, 160)] * 3
    assert all(map_HW.min() >= 0 and map_HW.max() in (0.0, 1.0) for map_HW in heats)
    assert any(map_HW.std() > 0.01 for map_HW in heats)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_what_a_network_says_is_the_same_when_it_is_looked_into(random_weights, backbone):
    model, head = made(backbone, random_weights, Form(image_size=(160, 160)))
    x_BCHW = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 160, 160)).astype(np.float32))
    with torch.no_grad():
        features_ND = model(x_BCHW).numpy()
    logits_NK = with_maps(model, head, (3, 160, 160))(x_BCHW).detach().numpy()
    assert np.allclose(logits_NK, features_ND @ head.weight.T, atol=1e-4)


def test_pooled_maps_are_looked_into_like_all_others(random_weights):
    model, head = made("test_efficientnet", random_weights, Form("pooled", image_size=(160, 160)))
    (map_HW,) = grad_cam(with_maps(model, head, (3, 160, 160)), torch.randn(1, 3, 160, 160), [0])
    assert map_HW.shape == (160, 160)


@pytest.mark.parametrize("output", ["class_token", "patch_mean", "class_and_patch_mean"])
def test_pooled_tokens_give_a_map_of_the_images_size(random_weights, output):
    model, head = made("test_vit", random_weights, Form(output, image_size=(160, 160)))
    (map_HW,) = grad_cam(with_maps(model, head, (3, 160, 160)), torch.randn(1, 3, 160, 160), [1])
    assert map_HW.shape == (160, 160)
    assert map_HW.max() == 1


def test_a_network_that_sees_the_image_as_one_place_is_refused(random_weights):
    model, head = made("test_efficientnet", random_weights, Form(image_size=(32, 32)))
    with pytest.raises(NoMaps, match=r"test_efficientnet .*shape"):
        with_maps(model, head, (3, 32, 32))


def test_a_network_of_several_branches_is_refused():
    model = timm.create_model("crossvit_tiny_240", pretrained=False, num_classes=0)
    head = LinearHead(np.zeros((2, 288), np.float32), np.zeros(2, np.float32), ["a", "b"])
    with pytest.raises(NoMaps, match="no places"):
        with_maps(model, head, (3, 240, 240))
