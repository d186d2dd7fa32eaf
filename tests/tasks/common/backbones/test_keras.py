"""Files of Keras in networks of timm: outputs beside those that `keras.applications` gave for the same weights."""

from functools import cache

import h5py
import numpy as np
import pytest
import timm
import torch

from bench.backbones import PLACES, RECORDED, SEED, SMALL, difference, keras_shapes, normalised, outputs
from bench.peers import keras_recipe
from graft.tasks.common.backbones import keras, network
from graft.tasks.common.backbones.adapt import adapt
from graft.tasks.common.backbones.catalogue import CATALOGUE, entry_of
from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.keras_layers import keras_network
from graft.tasks.common.backbones.keras_variants import become_keras
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.backbones.weights import WeightsSource
from graft.tasks.common.core.errors import WeightsError
from graft.tasks.common.engines.openvino import Engine

FEW = "MobileNetV2"
"""The network with the fewest weights."""

TESTED = 2
"""Of the recorded images: a large network takes a second for each."""

NAMES = [entry.name for entry in CATALOGUE]


@cache
def on_meta(name):
    """timm's network without numbers, for all tests; one that changes it makes its own."""
    return made_on_meta(name)


def made_on_meta(name):
    with torch.device("meta"):
        return timm.create_model(entry_of(name).timm, pretrained=False)


def layers_of(name):
    return list(keras_recipe.weights(keras_shapes(name, on_meta(name)), SEED))


def without_top(layers):
    return [layer for layer in layers if layer[0] not in keras.TOP]


@pytest.fixture(scope="session")
def few():
    return layers_of(FEW)


@pytest.fixture(scope="session")
def few_file(few, tmp_path_factory):
    file = tmp_path_factory.mktemp("keras") / "weights.h5"
    keras_recipe.write(file, few)
    return file


@pytest.fixture(scope="session")
def few_state(few_file):
    return keras.create(entry_of(FEW), few_file).state_dict()


@pytest.mark.parametrize("name", SMALL)
def test_features_and_logits_are_those_of_keras(name, tmp_path):
    recorded = np.load(RECORDED / f"{name}.npz")
    pixels, layers = keras_recipe.images(int(recorded["side"]))[:TESTED], layers_of(name)
    keras_recipe.write(tmp_path / "whole.h5", layers)
    keras_recipe.write(tmp_path / "notop.h5", without_top(layers))

    found = outputs(entry_of(name), tmp_path / "whole.h5", "pre_logits", pixels)
    found |= outputs(entry_of(name), tmp_path / "notop.h5", "pooled", pixels)

    for kind in ("features", "logits", "notop"):
        assert difference(found[kind][:, ::PLACES], recorded[kind][:TESTED]) < 1e-4, kind


# Parameters


def lacks_bias(module):
    return getattr(module, "bias", 0) is None


@pytest.mark.parametrize("name", NAMES)
def test_all_parameters_of_keras_are_accounted_for(name):
    network, entry = on_meta(name), entry_of(name)
    modules = keras.modules_of(name, network)
    learned = sum(parameter.numel() for parameter in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    moving = sum(norm.running_mean.numel() + norm.running_var.numel() for norm in norms)
    shapes = dict(keras_shapes(name, network))
    gammas = sum(layer[0][0] for layer in shapes.values() if len(layer) == 3 and len(layer[0]) == 1)
    biases = sum(
        layer[-1][0]
        for place, layer in shapes.items()
        if len(layer[0]) > 1 and len(layer[-1]) == 1 and lacks_bias(network.get_submodule(modules[place]))
    )

    in_keras = learned + moving + biases - gammas

    assert in_keras == keras_network(name).parameters
    assert round(in_keras / 1e6, 1) == entry.parameters
    assert len(keras_network(name).layers) == entry.depth


def test_nasnet_mobile_has_the_trainable_parameters_of_keras():
    assert sum(parameter.numel() for parameter in on_meta("NASNetMobile").parameters()) == 5_289_978


def test_the_intermediate_maps_of_nasnet_mobile_are_those_that_hooks_find():
    network = timm.create_model("nasnetamobile").eval()
    hooked = timm.create_model("nasnetamobile", features_only=True).eval()
    hooked.body.load_state_dict(network.state_dict(), strict=False)  # all but the classifier
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        last, maps = network.forward_intermediates(x)
        assert torch.equal(last, network.forward_features(x))
        assert all(torch.equal(one, two) for one, two in zip(maps, hooked(x), strict=True))
        early = network.forward_intermediates(x, [2], stop_early=True, intermediates_only=True)
        assert [torch.equal(one, maps[2]) for one in early] == [True]


def test_all_modules_with_weights_are_layers_of_keras():
    for name in NAMES:
        network = on_meta(name)
        holders = {
            path for path, module in network.named_modules() if getattr(module, "weight", None) is not None
        }  # of a separable convolution its parts
        filled = set()
        for path in keras.modules_of(name, network).values():
            filled |= {h for h in holders if h == path or h.startswith(f"{path}.")}
        assert filled == holders, name


# Layouts


def keras3_class(name, arrays):
    """What Keras 3 calls a layer's class in a file."""
    if len(arrays) == 4:
        return "batch_normalization"
    if "sepconv" in name:
        return "separable_conv2d"
    if name == "predictions":
        return "dense"
    return "depthwise_conv2d" if name.endswith("_depthwise") else "conv2d"


def write_keras3(file, layers):
    """As Keras 3 writes `.weights.h5`: a group a layer, by class and number."""
    counts = {}
    with h5py.File(file, "w") as content:
        content.create_group("layers/re_lu/vars")
        for name, arrays in layers:
            kind = keras3_class(name, arrays)
            number = counts[kind] = counts.get(kind, -1) + 1
            for place, array in enumerate(arrays):
                content[f"layers/{kind}{f'_{number}' if number else ''}/vars/{place}"] = array


def test_keras_3_files_are_read(few, few_state, tmp_path):
    write_keras3(tmp_path / "x.weights.h5", few)
    state = keras.create(entry_of(FEW), tmp_path / "x.weights.h5").state_dict()
    assert all(torch.equal(state[key], few_state[key]) for key in few_state)


def test_separable_convolutions_in_keras_3_files_are_read(tmp_path):
    layers = layers_of("Xception")
    write_keras3(tmp_path / "x.weights.h5", layers)
    keras_recipe.write(tmp_path / "x.h5", layers)
    one, two = (keras.create(entry_of("Xception"), tmp_path / name).state_dict() for name in ("x.weights.h5", "x.h5"))
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_keras_3_files_without_a_top_are_read(few, few_state, tmp_path):
    write_keras3(tmp_path / "x.weights.h5", without_top(few))
    state = keras.create(entry_of(FEW), tmp_path / "x.weights.h5").state_dict()
    assert set(few_state) - set(state) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(state[key], few_state[key]) for key in state)


def test_whole_models_in_the_older_layout_are_read(few, few_state, few_file, tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as target, h5py.File(few_file) as source:
        target.copy(source, "model_weights")
    with h5py.File(tmp_path / "model.h5", "a") as target, h5py.File(few_file) as source:
        target["model_weights"].attrs.update(source.attrs)
    state = keras.create(entry_of(FEW), tmp_path / "model.h5").state_dict()
    assert all(torch.equal(state[key], few_state[key]) for key in few_state)


def test_layers_without_weights_in_the_older_layout_are_passed_over(few, few_state, tmp_path):
    keras_recipe.write(tmp_path / "x.h5", [*few[:1], ("pad", []), *few[1:]])
    state = keras.create(entry_of(FEW), tmp_path / "x.h5").state_dict()
    assert all(torch.equal(state[key], few_state[key]) for key in few_state)


def test_other_names_of_layers_in_the_older_layout_do_not_matter(few, few_state, tmp_path):
    keras_recipe.write(tmp_path / "x.h5", [(f"layer/{n}", arrays) for n, (_, arrays) in enumerate(few)])
    state = keras.create(entry_of(FEW), tmp_path / "x.h5").state_dict()
    assert all(torch.equal(state[key], few_state[key]) for key in few_state)


def test_a_classifier_of_other_classes_is_kept(few, tmp_path):
    kernel = np.ones((1280, 7), np.float32)
    keras_recipe.write(tmp_path / "x.h5", [*few[:-1], ("predictions", [kernel, np.arange(7, dtype=np.float32)])])
    network = keras.create(entry_of(FEW), tmp_path / "x.h5")
    assert network.classifier.weight.shape == (7, 1280)
    assert network.classifier.bias.tolist() == list(range(7))


# What goes wrong


def test_another_networks_file_is_refused(few_file):
    with pytest.raises(WeightsError, match="does not hold the weights of ResNet50") as refused:
        keras.create(entry_of("ResNet50"), few_file)
    assert refused.value.got == "105 layers with weights"


def test_layers_of_another_shape_are_refused_by_name(few, tmp_path):
    name, arrays = few[4]
    keras_recipe.write(tmp_path / "x.h5", [*few[:4], (name, [arrays[0][:, :, :, :3]]), *few[5:]])
    with pytest.raises(WeightsError, match=f"the layer {name} is of another network"):
        keras.create(entry_of(FEW), tmp_path / "x.h5")


def test_too_few_arrays_in_a_layer_are_refused_by_name(few, tmp_path):
    name, arrays = few[1]
    keras_recipe.write(tmp_path / "x.h5", [few[0], (name, arrays[:2]), *few[2:]])
    with pytest.raises(WeightsError, match=f"the layer {name} is of another network"):
        keras.create(entry_of(FEW), tmp_path / "x.h5")


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as weights of Keras"):
        keras.create(entry_of(FEW), tmp_path / "x.h5")


def test_a_file_that_is_cut_short_is_refused(few_file, tmp_path):
    (tmp_path / "x.h5").write_bytes(few_file.read_bytes()[:-100_000])
    with pytest.raises(WeightsError, match="cannot be read as weights of Keras"):
        keras.create(entry_of(FEW), tmp_path / "x.h5")


@pytest.mark.parametrize("place", ["spectrum", "layers", "layers/conv2d/vars/kernel", "layers/conv2d"])
def test_an_h5_file_of_something_else_is_refused(place, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[place] = np.ones(3)
    with pytest.raises(WeightsError, match="cannot be read as weights of Keras"):
        keras.create(entry_of(FEW), tmp_path / "x.h5")


def test_vgg_without_its_top_gives_pooled_features_only(tmp_path):
    """512 features; the hidden layers of 4,096 are in the top."""
    keras_recipe.write(tmp_path / "x.h5", without_top(_vgg_without_top()))
    with pytest.raises(WeightsError, match="has no fc1 and fc2") as refused:
        keras.create(entry_of("VGG16"), tmp_path / "x.h5")
    assert "features.output: pooled" in refused.value.todo
    network = keras.create(entry_of("VGG16"), tmp_path / "x.h5", "pooled")
    x = normalised(network, keras_recipe.images(64))
    with torch.inference_mode():
        assert network.forward_features(x).shape == (4, 512, 2, 2)


def _vgg_without_top():
    shapes = [layer for layer in keras_shapes("VGG16", on_meta("VGG16")) if layer[0] not in keras.TOP]
    return list(keras_recipe.weights(shapes, SEED))


# In Graft


def test_a_graph_of_keras_weights_computes_what_keras_computes(few_file, tmp_path):
    recorded = np.load(RECORDED / f"{FEW}.npz")
    graph = backbone_graph(entry_of(FEW).timm, WeightsSource("keras", "weights.h5", few_file, "0" * 64), tmp_path)
    found = Engine(graph.xml)(keras_recipe.images(int(recorded["side"])))
    assert difference(found[:, ::PLACES], recorded["features"]) < 1e-4
    assert graph.spec.weights == "keras: weights.h5"
    assert graph.spec.transform.mean == (0.5, 0.5, 0.5)


def test_grey_images_do_to_weights_of_keras_what_equal_red_green_and_blue_do(few_file):
    source = WeightsSource("keras", "weights.h5", few_file, "0" * 64)
    grey, colour = (
        network.create(entry_of(FEW).timm, source, Form("pre_logits", channels, (96, 64))) for channels in (1, 3)
    )
    x_B1HW = torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(grey(x_B1HW), colour(x_B1HW.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_of_keras_takes_five_channels(name):
    model, entry = made_on_meta(name).eval(), entry_of(name)
    become_keras(model, entry)
    side = model.pretrained_cfg["input_size"][1]
    with torch.device("meta"), torch.inference_mode():
        maps = model.forward_features(torch.zeros(1, 3, side, side))
        adapted = adapt(model, entry.timm, Form(channels=5))
        assert adapted.forward_features(torch.zeros(1, 5, side, side)).shape == maps.shape


def test_a_whole_file_gives_logits_and_one_without_a_top_has_none_to_give(few, few_file, tmp_path):
    logits, timm_name = Form(output="logits"), entry_of(FEW).timm
    model = network.create(timm_name, WeightsSource("keras", "whole", few_file, "0"), logits)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)

    keras_recipe.write(tmp_path / "notop.h5", without_top(few))
    with pytest.raises(WeightsError, match="without a classifier"):
        network.create(timm_name, WeightsSource("keras", "notop", tmp_path / "notop.h5", "0"), logits)
