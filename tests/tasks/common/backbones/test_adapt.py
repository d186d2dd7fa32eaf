from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.adapt import over_channels
from graft.tasks.common.backbones.graph import convert, read_graph
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.backbones.weights import WeightsSource
from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.engines.torch import TorchEngine

CONVOLUTIONAL, FIXED = "test_efficientnet", "test_vit"
RANDOM = WeightsSource("random", "seed 0")


def form(channels=3, size=None, output="pre_logits"):
    return Form(output, channels, size)


@pytest.fixture
def weights(tmp_path):
    """weights(backbone) -> a file of weights, for RGB images of the size of pre-training."""

    def make(backbone) -> Path:
        torch.manual_seed(4)
        file = tmp_path / f"{backbone}.safetensors"
        save_file(timm.create_model(backbone).state_dict(), file)
        return file

    return make


def timms_own(backbone, file, **asked):
    """The network as timm's own loader makes it."""
    place = {"file": str(file), "url": "", "hf_hub_id": None, "custom_load": False}
    return timm.create_model(
        backbone, pretrained=True, num_classes=0, pretrained_cfg_overlay=place, **asked
    ).eval()  # fmt: skip


def assert_same_network(ours, theirs, channels, height, width):
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1))
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("backbone", [CONVOLUTIONAL, FIXED, "test_nfnet"])
def test_another_number_of_channels_is_timms_own_adaptation(weights, backbone, channels):
    file = weights(backbone)
    ours = network.create(backbone, WeightsSource("file", "x", file), form(channels))
    side = ours.pretrained_cfg["input_size"][1]
    assert_same_network(ours, timms_own(backbone, file, in_chans=channels), channels, side, side)


@pytest.mark.parametrize("size", [(96, 128), (320, 64)], ids=str)
@pytest.mark.parametrize("backbone", [FIXED, "test_vit_relpos"])
def test_another_size_of_a_network_of_fixed_size_is_timms_own_interpolation(weights, backbone, size):
    file = weights(backbone)
    ours = network.create(backbone, WeightsSource("file", "x", file), form(size=size))
    assert_same_network(ours, timms_own(backbone, file, img_size=size), 3, *size)


def test_size_and_channels_can_both_be_others(weights):
    file = weights(FIXED)
    ours = network.create(FIXED, WeightsSource("file", "x", file), form(5, (96, 128)))
    assert_same_network(ours, timms_own(FIXED, file, img_size=(96, 128), in_chans=5), 5, 96, 128)


def test_a_convolutional_network_takes_any_size_with_the_same_weights(tiny_network):
    other = network.create(CONVOLUTIONAL, RANDOM, form(size=(70, 131)))
    expected = tiny_network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
    with torch.inference_mode():
        assert other(torch.zeros(2, 3, 70, 131)).shape == (2, tiny_network.num_features)


def test_pooled_maps_can_be_of_another_size_and_number_of_channels():
    model = network.create(CONVOLUTIONAL, RANDOM, form(2, (64, 96), "pooled"))
    assert network.spec_of(model, CONVOLUTIONAL, RANDOM, form(2, (64, 96), "pooled")).transform.width == 96


def test_grey_images_do_what_equal_red_green_and_blue_do():
    """Where all channels are normalised alike, as this network's are."""
    grey, colour = network.create(FIXED, RANDOM, form(1)), network.create(FIXED, RANDOM)
    x_B1HW = torch.randn(2, 1, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(grey(x_B1HW), colour(x_B1HW.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_grey_is_normalised_by_the_mean_of_the_channels():
    assert over_channels((0.3, 0.4, 0.8), 1) == (0.5,)


@pytest.mark.parametrize(("channels", "expected"), [(2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 3, 1)), (7, (1, 2, 3) * 3)])
def test_values_of_channels_are_repeated_as_the_weights_are(channels, expected):
    assert over_channels((1, 2, 3), channels) == expected[:channels]


def test_the_geometry_is_that_of_pretraining_but_for_the_size():
    model = network.create(CONVOLUTIONAL, RANDOM, form(1, (96, 128)))
    ours, usual = network.eval_transform(model, form(1, (96, 128))), network.eval_transform(model)
    assert (ours.height, ours.width, ours.channels) == (96, 128, 1)
    assert (ours.crop_pct, ours.crop_mode, ours.interpolation) == (
        usual.crop_pct, usual.crop_mode, usual.interpolation,
    )  # fmt: skip


def test_a_size_with_which_nothing_is_left_is_refused_with_the_least_one():
    with pytest.raises(ParamsError, match=r"`features\.image_size`") as refused:
        network.create("inception_v3", RANDOM, form(size=(64, 400)))
    assert refused.value.got == "64 x 400 (height x width)"
    assert refused.value.allowed == "at least 75 x 75; 299 x 299 in pre-training"


def test_a_network_that_timm_cannot_resize_is_refused_with_its_own_size():
    with pytest.raises(ParamsError, match=r"convit_tiny.*`features\.image_size`.*pos_embed") as refused:
        network.create("convit_tiny", RANDOM, form(size=(192, 256)))
    assert refused.value.got == "192 x 256 (height x width)"
    assert refused.value.allowed.startswith("224 x 224")


def test_a_network_whose_first_convolution_timm_does_not_name_is_refused():
    with pytest.raises(ParamsError, match=r"csatv2.*`preprocess\.channels`.*does not say") as refused:
        network.create("csatv2", RANDOM, form(5))
    assert refused.value.got == 5
    assert refused.value.allowed == "3 with this backbone"


def test_a_first_convolution_that_timm_cannot_widen_is_named():
    """It sees the image folded: 48 channels of a quarter of the size."""
    with pytest.raises(ParamsError, match=r"tresnet_m.*body\.conv1\.conv"):
        network.create("tresnet_m", RANDOM, form(5))


@pytest.mark.parametrize(("backbone", "channels"), [(CONVOLUTIONAL, 1), (FIXED, 5)])
def test_a_graph_and_the_torch_engine_take_such_images(tmp_path, backbone, channels):
    asked = form(channels, (96, 128))
    model = network.create(backbone, RANDOM, asked)
    spec = network.spec_of(model, backbone, RANDOM, asked)
    convert(model, spec, tmp_path / "g")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 96, 128, channels), dtype=np.uint8)
    engines = Engine(read_graph(tmp_path / "g").xml), TorchEngine(model, spec.transform, "cpu")
    for engine in engines:
        ((_, streamed),) = engine.stream(lambda i: pixels[i], 3)
        assert np.allclose(streamed, engine(pixels), rtol=1e-3, atol=1e-5)
    graphs, torchs = (engine(pixels) for engine in engines)
    assert np.allclose(graphs, torchs, rtol=1e-3, atol=1e-4 * np.abs(torchs).max())


def test_the_network_of_a_spec_can_be_created_again(tmp_path):
    model = network.create(FIXED, RANDOM, form(5, (96, 128)))
    spec = network.spec_of(model, FIXED, RANDOM, form(5, (96, 128)))
    again = network.create_again(spec, RANDOM)
    assert network.state_sha256(again.state_dict().items()) == spec.weights_sha256
