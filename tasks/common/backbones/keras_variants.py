"""What Keras' networks compute otherwise than timm's: epsilons, strides, paddings, and what they are fed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from . import nasnet
from .catalogue import Entry

GEOMETRY: dict[str, Any] = {
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "test_input_size": None,
    "test_crop_pct": None,
}
"""Of the evaluation: Keras leaves it to the user. This is how the weights' publishers evaluated most of them."""

PREPROCESSING = {
    "caffe": {"mean": (123.68 / 255, 116.779 / 255, 103.939 / 255), "std": (1 / 255, 1 / 255, 1 / 255)},
    "tf": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "torch": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
}
"""The modes of `keras.applications.imagenet_utils.preprocess_input` as means and deviations of RGB from 0 to 1."""


@dataclass(frozen=True)
class Variant:
    """A network as Keras has it.

    Attributes:
        epsilon: of its batch norms.
        preprocessing: a mode of `PREPROCESSING`; `caffe` is fed with BGR.
        change: what else must be changed in timm's network.
    """

    epsilon: float
    preprocessing: Literal["caffe", "tf", "torch"]
    change: Callable[[Any], None] | None = None


def become_keras(network: Any, entry: Entry) -> None:
    """Changes timm's network of `entry`, in place, to compute what Keras' does and to say how it is fed."""
    variant = VARIANTS[entry.name]
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = variant.epsilon
    if variant.change is not None:
        variant.change(network)
    config: dict[str, Any] = dict(network.pretrained_cfg)
    network.pretrained_cfg = {**config, **GEOMETRY, **PREPROCESSING[variant.preprocessing], "tag": "keras"}


def _resnet(network: Any) -> None:
    """A stage's stride is in its first block's first convolution, not in the 3 x 3."""
    for stage in (2, 3, 4):
        block = network.get_submodule(f"layer{stage}.0")
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


class _SubsampledBlock(nn.Module):
    """The last block of a stage in Keras' ResNetV2: it has the stage's stride; its skip takes every second pixel."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        block.conv2.stride = (2, 2)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        residual_BCHW = x_BCHW
        for name in ("norm1", "conv1", "norm2", "conv2", "norm3", "conv3"):
            residual_BCHW = self.get_submodule(name)(residual_BCHW)
        return residual_BCHW + x_BCHW[..., ::2, ::2]


def _resnet_v2(network: Any) -> None:
    """A stage's stride is in its last block (the fourth stage has none); zeros take part in the stem's maximum."""
    network.stem.pool = nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))
    for stage, layers in enumerate(network.stages):
        first = layers.blocks[0]
        first.conv2.stride = first.downsample.conv.stride = (1, 1)
        if stage < 3:
            layers.blocks[-1] = _SubsampledBlock(layers.blocks[-1])


def _same_strides(network: Any) -> None:
    """Convolutions with a stride pad as TensorFlow does, more at the end than at the beginning."""
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and conv.stride[0] == 2 and conv.kernel_size[0] > 1:
                setattr(parent, name, _with_weights(conv, Conv2dSame))


class _EndPadded(nn.Conv2d):
    """A 3 x 3 convolution with stride 2 that pads one row and one column at the end, whatever the size."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x_BCHW, (0, 1, 0, 1)))


def _mobilenet(network: Any) -> None:
    _same_strides(network)
    for block in network.blocks.modules():
        if isinstance(getattr(block, "conv_dw", None), Conv2dSame):
            block.conv_dw = _with_weights(block.conv_dw, _EndPadded)


def _with_weights(conv: Any, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """A convolution of another kind, without padding of its own, with the parameters of `conv`."""
    sizes = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
    new = kind(*sizes, groups=conv.groups, bias=conv.bias is not None, device="meta")
    new.weight, new.bias = conv.weight, conv.bias
    return new


def _xception(network: Any) -> None:
    for parent in list(network.modules()):
        for name, pool in list(parent.named_children()):
            if isinstance(pool, nn.MaxPool2d):
                setattr(parent, name, MaxPool2dSame(3, 2))


class _EdgeWeighted(nn.Conv2d):
    """A 1 x 1 convolution behind a 3 x 3 average that counted its padding, which is taken out again: at an edge six of
    nine values are the image's, in a corner four."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        ones = torch.ones_like(x_BCHW[:1, :1])
        share = nn.functional.avg_pool2d(ones, 3, 1, padding=1)
        return super().forward(x_BCHW / share)


def _inception_v3(network: Any) -> None:
    """Averages leave padding out."""
    for block in network.children():
        if hasattr(block, "branch_pool"):
            block.branch_pool.conv = _with_weights(block.branch_pool.conv, _EdgeWeighted)


VARIANTS = {
    "Xception": Variant(1e-3, "tf", _xception),
    "VGG16": Variant(1e-3, "caffe"),
    "VGG19": Variant(1e-3, "caffe"),
    "ResNet50": Variant(1.001e-5, "caffe", _resnet),
    "ResNet101": Variant(1.001e-5, "caffe", _resnet),
    "ResNet152": Variant(1.001e-5, "caffe", _resnet),
    "ResNet50V2": Variant(1.001e-5, "tf", _resnet_v2),
    "ResNet101V2": Variant(1.001e-5, "tf", _resnet_v2),
    "ResNet152V2": Variant(1.001e-5, "tf", _resnet_v2),
    "InceptionV3": Variant(1e-3, "tf", _inception_v3),
    "InceptionResNetV2": Variant(1e-3, "tf"),
    "MobileNet": Variant(1e-3, "tf", _mobilenet),
    "MobileNetV2": Variant(1e-3, "tf", _same_strides),
    "DenseNet121": Variant(1.001e-5, "torch"),
    "DenseNet169": Variant(1.001e-5, "torch"),
    "DenseNet201": Variant(1.001e-5, "torch"),
    "NASNetMobile": Variant(1e-3, "tf"),
    "NASNetLarge": Variant(1e-3, "tf", nasnet.pool_as_keras),
}
"""By Keras' names. VGG has no batch norm."""
