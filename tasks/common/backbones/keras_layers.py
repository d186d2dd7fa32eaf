"""Which module of a timm network is which layer of Keras' network.

`keras_layers.txt` has a line a network: Keras' name, its number of parameters, and its layers that have weights, in the
order of `model.layers`, which is the order in which Keras writes and reads weights whatever the layers are called in a
file (`bench/backbones.py --record` writes it from Keras itself). Names without a meaning (`conv2d_17`) count the layers
in the order in which Keras' code makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

Pairs = Iterator[tuple[str, str]]
"""(layer in Keras, module in timm); of a separable convolution the module that holds both its parts."""

CLASSIFIER = ("predictions", "conv_preds")


@dataclass(frozen=True)
class KerasNetwork:
    """A line of `keras_layers.txt`.

    Attributes:
        parameters: all of them, moving statistics included, as `model.count_params()` says.
        layers: names, in Keras' own order.
    """

    parameters: int
    layers: tuple[str, ...]


@lru_cache
def keras_network(name: str) -> KerasNetwork:
    """What Keras' network of this name consists of."""
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        found, parameters, *layers = line.split()
        if found == name:
            return KerasNetwork(int(parameters), tuple(layers))
    raise AssertionError(f"{name} is in the catalogue, and not in keras_layers.txt")


def modules_of(name: str, network: Any) -> dict[str, str]:
    """Layer in Keras -> module in `network`, the timm network of this Keras name; the classifier included."""
    pairs = dict(_FAMILIES[name](network))
    classifier = keras_network(name).layers[-1]
    assert classifier in CLASSIFIER
    pairs[classifier] = network.pretrained_cfg["classifier"]
    assert set(pairs) == set(keras_network(name).layers)
    return pairs


def _vgg(network: Any) -> Pairs:
    block, place = 1, 1
    for number, layer in enumerate(network.features):
        if isinstance(layer, nn.MaxPool2d):
            block, place = block + 1, 1
        elif isinstance(layer, nn.Conv2d):
            yield f"block{block}_conv{place}", f"features.{number}"
            place += 1
    yield "fc1", "pre_logits.fc1"
    yield "fc2", "pre_logits.fc2"


def _resnet(network: Any) -> Pairs:
    yield "conv1_conv", "conv1"
    yield "conv1_bn", "bn1"
    for stage in range(1, 5):
        for number, block in enumerate(getattr(network, f"layer{stage}")):
            keras, timm = f"conv{stage + 1}_block{number + 1}", f"layer{stage}.{number}"
            if block.downsample is not None:
                yield f"{keras}_0_conv", f"{timm}.downsample.0"
                yield f"{keras}_0_bn", f"{timm}.downsample.1"
            for place in (1, 2, 3):
                yield f"{keras}_{place}_conv", f"{timm}.conv{place}"
                yield f"{keras}_{place}_bn", f"{timm}.bn{place}"


def _resnet_v2(network: Any) -> Pairs:
    yield "conv1_conv", "stem.conv"
    for stage, layers in enumerate(network.stages):
        for number in range(len(layers.blocks)):
            keras, timm = f"conv{stage + 2}_block{number + 1}", f"stages.{stage}.blocks.{number}"
            yield f"{keras}_preact_bn", f"{timm}.norm1"
            if number == 0:
                yield f"{keras}_0_conv", f"{timm}.downsample.conv"
            yield f"{keras}_1_conv", f"{timm}.conv1"
            yield f"{keras}_1_bn", f"{timm}.norm2"
            yield f"{keras}_2_conv", f"{timm}.conv2"
            yield f"{keras}_2_bn", f"{timm}.norm3"
            yield f"{keras}_3_conv", f"{timm}.conv3"
    yield "post_bn", "norm"


def _densenet(network: Any) -> Pairs:
    yield "conv1_conv", "features.conv0"
    yield "conv1_bn", "features.norm0"
    for stage in range(1, 5):
        for number in range(1, len(network.get_submodule(f"features.denseblock{stage}")) + 1):
            keras, timm = f"conv{stage + 1}_block{number}", f"features.denseblock{stage}.denselayer{number}"
            yield f"{keras}_0_bn", f"{timm}.norm1"
            yield f"{keras}_1_conv", f"{timm}.conv1"
            yield f"{keras}_1_bn", f"{timm}.norm2"
            yield f"{keras}_2_conv", f"{timm}.conv2"
        if stage < 4:
            yield f"pool{stage + 1}_bn", f"features.transition{stage}.norm"
            yield f"pool{stage + 1}_conv", f"features.transition{stage}.conv"
    yield "bn", "features.norm5"


def _blocks(network: Any) -> Iterator[str]:
    """The blocks of an EfficientNet-like network, from the first to the last."""
    for stage, blocks in enumerate(network.blocks):
        yield from (f"blocks.{stage}.{number}" for number in range(len(blocks)))


def _mobilenet(network: Any) -> Pairs:
    yield "conv1", "conv_stem"
    yield "conv1_bn", "bn1"
    for number, timm in enumerate(_blocks(network), start=1):
        yield f"conv_dw_{number}", f"{timm}.conv_dw"
        yield f"conv_dw_{number}_bn", f"{timm}.bn1"
        yield f"conv_pw_{number}", f"{timm}.conv_pw"
        yield f"conv_pw_{number}_bn", f"{timm}.bn2"


def _mobilenet_v2(network: Any) -> Pairs:
    yield "Conv1", "conv_stem"
    yield "bn_Conv1", "bn1"
    for number, timm in enumerate(_blocks(network)):
        keras = f"block_{number}" if number else "expanded_conv"
        steps = [("expand", "conv_pw"), ("depthwise", "conv_dw"), ("project", "conv_pwl")]
        if not number:
            steps = [("depthwise", "conv_dw"), ("project", "conv_pw")]  # nothing to expand
        for place, (name, module) in enumerate(steps, start=1):
            yield f"{keras}_{name}", f"{timm}.{module}"
            yield f"{keras}_{name}_BN", f"{timm}.bn{place}"
    yield "Conv_1", "conv_head"
    yield "Conv_1_bn", "bn2"


def _numbered(modules: Iterable[str], conv: str = "conv", bn: str = "bn") -> Pairs:
    """Modules of a convolution and its batch norm each, whose layers Keras has numbered as they were made."""
    for number, module in enumerate(modules):
        count = f"_{number}" if number else ""
        yield f"conv2d{count}", f"{module}.{conv}"
        yield f"batch_normalization{count}", f"{module}.{bn}"


def _xception(network: Any) -> Pairs:
    for number in (1, 2):
        yield f"block1_conv{number}", f"conv{number}"
        yield f"block1_conv{number}_bn", f"bn{number}"
    skips = []
    for number in range(1, 13):
        layers = network.get_submodule(f"block{number}.rep")
        places = [place for place, layer in layers.named_children() if hasattr(layer, "pointwise")]
        for count, place in enumerate(places, start=1):
            keras = f"block{number + 1}_sepconv{count}"
            yield keras, f"block{number}.rep.{place}"
            yield f"{keras}_bn", f"block{number}.rep.{int(place) + 1}"
        if getattr(network, f"block{number}").skip is not None:
            skips.append(f"block{number}")
    yield from _numbered(skips, "skip", "skipbn")
    for number in (1, 2):
        yield f"block14_sepconv{number}", f"conv{number + 2}"
        yield f"block14_sepconv{number}_bn", f"bn{number + 2}"


_BRANCHES = {
    "InceptionA": "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool",
    "InceptionB": "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
    "InceptionC": "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 "
    "branch7x7dbl_4 branch7x7dbl_5 branch_pool",
    "InceptionD": "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
    "InceptionE": "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a "
    "branch3x3dbl_3b branch_pool",
}


def _inception_v3(network: Any) -> Pairs:
    modules = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    for name, block in network.named_children():
        if name.startswith("Mixed_"):
            modules += [f"{name}.{branch}" for branch in _BRANCHES[type(block).__name__].split()]
    yield from _numbered(modules)


def _inception_resnet_v2(network: Any) -> Pairs:
    last = "conv2d_7b"
    convs = [name for name, module in network.named_modules() if hasattr(module, "conv") and hasattr(module, "bn")]
    yield from _numbered(name for name in convs if name != last)
    for keras, timm in (("block35", "repeat"), ("block17", "repeat_1"), ("block8", "repeat_2")):
        count = len(getattr(network, timm))
        yield from ((f"{keras}_{number + 1}_conv", f"{timm}.{number}.conv2d") for number in range(count))
    yield "block8_10_conv", "block8.conv2d"
    yield "conv_7b", f"{last}.conv"
    yield "conv_7b_bn", f"{last}.bn"


def _nasnet(network: Any) -> Pairs:
    yield "stem_conv1", "conv0.conv"
    yield "stem_bn1", "conv0.bn"
    for cell, module in _cells(network):
        kind = "normal" if hasattr(module, "comb_iter_3_left") else "reduction"
        yield from _cell(cell, kind, module, _number_of(cell, network))


def _cells(network: Any) -> Iterator[tuple[str, Any]]:
    """The cells in the order in which data flows."""
    for name in network.layer_names[1:]:
        yield name, network.get_submodule(name)


def _number_of(cell: str, network: Any) -> str:
    """What Keras calls a cell: the two of the stem; then normal ones and reductions counted together, but for the
    second reduction; a reduction also by the normal cells before it."""
    names = list(network.layer_names)
    if cell.startswith("cell_stem_"):
        return f"stem_{int(cell[-1]) + 1}"
    a_stage = names.index("reduction_cell_0") - names.index("cell_0")
    if cell.startswith("reduction_cell_"):
        return f"reduce_{a_stage * (int(cell[-1]) + 1)}"
    place = names.index(cell) - names.index("cell_0")
    stage = sum(names.index(f"reduction_cell_{n}") < names.index(cell) for n in (0, 1))
    return str(place - max(stage - 1, 0))


def _cell(timm: str, kind: str, module: Any, number: str) -> Pairs:
    if hasattr(module, "path_1"):
        yield f"adjust_conv_1_{number}", f"{timm}.path_1.conv"
        yield f"adjust_conv_2_{number}", f"{timm}.path_2.conv"
        yield f"adjust_bn_{number}", f"{timm}.final_path_bn"
    elif hasattr(module, "conv_prev_1x1"):
        yield f"adjust_conv_projection_{number}", f"{timm}.conv_prev_1x1.conv"
        yield f"adjust_bn_{number}", f"{timm}.conv_prev_1x1.bn"
    yield f"{kind}_conv_1_{number}", f"{timm}.conv_1x1.conv"
    yield f"{kind}_bn_1_{number}", f"{timm}.conv_1x1.bn"
    for name, branch in module.named_children():
        if hasattr(branch, "separable_1"):
            _, _, count, side = name.split("_")  # comb_iter_0_left
            place = 4 if kind == "reduction" and count == "4" else int(count) + 1  # Keras calls its fifth block 4 too
            block = f"{kind}_{side}{place}_{number}"
            for step in (1, 2):
                yield f"separable_conv_{step}_{block}", f"{timm}.{name}.separable_{step}"
                yield f"separable_conv_{step}_bn_{block}", f"{timm}.{name}.bn_sep_{step}"


_FAMILIES: dict[str, Callable[[Any], Pairs]] = {
    "Xception": _xception,
    "VGG16": _vgg,
    "VGG19": _vgg,
    "ResNet50": _resnet,
    "ResNet101": _resnet,
    "ResNet152": _resnet,
    "ResNet50V2": _resnet_v2,
    "ResNet101V2": _resnet_v2,
    "ResNet152V2": _resnet_v2,
    "InceptionV3": _inception_v3,
    "InceptionResNetV2": _inception_resnet_v2,
    "MobileNet": _mobilenet,
    "MobileNetV2": _mobilenet_v2,
    "DenseNet121": _densenet,
    "DenseNet169": _densenet,
    "DenseNet201": _densenet,
    "NASNetMobile": _nasnet,
    "NASNetLarge": _nasnet,
}
