"""Weights of Keras in networks of timm.

A bias before a batch norm goes into its running mean; a batch norm without gamma gets ones; the channels of a network
that Keras feeds with BGR are flipped in its first convolution. What else differs is `keras_variants`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from ..core.errors import WeightsError
from .catalogue import KERAS_FILES, Entry
from .keras_h5 import Array, Layer, read_layers
from .keras_layers import keras_network, modules_of
from .keras_variants import VARIANTS, become_keras
from .spec import Output

TOP = ("fc1", "fc2", "predictions", "conv_preds")
"""The layers that Keras' files without a top (`*_notop.h5`) have not."""


def create(entry: Entry, file: Path, output: Output = "pre_logits") -> nn.Module:
    """timm's network with the weights of Keras that `file` holds, in evaluation mode.

    Its classifier has as many classes as the file's; if the file has no top, the network gives features.

    Raises:
        WeightsError: the file is damaged, or of another network, or lacks layers that `output` needs.
    """
    network = timm.create_model(entry.timm, pretrained=False)
    become_keras(network, entry)
    modules = modules_of(entry.name, network)
    placed = _place(read_layers(file), modules, network, entry, file)
    hidden = [name for name in ("fc1", "fc2") if name in modules and name not in placed]
    if hidden and output != "pooled":
        raise WeightsError(
            f"{file.name} has no {' and '.join(hidden)}, as Keras' files without a top have not",
            got=f"features before the classifier of {entry.name}",
            allowed="a file with its top, or the features of the last maps",
            todo=f"set `features.output: pooled`, or take {KERAS_FILES}{entry.keras.path}",
        )
    top = placed.get(keras_network(entry.name).layers[-1])
    network.reset_classifier(top[0].shape[-1] if top else 0)
    with torch.no_grad():
        for name, arrays in placed.items():
            _fill(network, modules, name, arrays, file)
        if VARIANTS[entry.name].preprocessing == "caffe":
            first = network.get_submodule(network.pretrained_cfg["first_conv"])
            first.weight.copy_(first.weight.flip(1))
    return network.eval()


def _place(
    layers: Sequence[Layer], modules: dict[str, str], network: Any, entry: Entry, file: Path
) -> dict[str, tuple[Array, ...]]:
    """Layer in Keras -> its arrays. Layers without a top are the first of all.

    Raises:
        WeightsError: the number of layers, of one kind or of all, is another network's.
    """
    names = list(keras_network(entry.name).layers)
    top = [name for name in names if name in TOP]
    if len(layers) == len(names) - len(top):
        names = names[: -len(top)]
    kinds = {name: _kind(name, network.get_submodule(modules[name])) for name in names}
    found: dict[str, tuple[Array, ...]] = {}
    for kind in {layer.kind for layer in layers}:
        ours = [name for name in names if kind in ("", kinds[name])]
        theirs = [layer.arrays for layer in layers if layer.kind == kind]
        if len(ours) == len(theirs):
            found |= dict(zip(ours, theirs))
    if len(found) != len(names):
        raise WeightsError(
            f"{file.name} does not hold the weights of {entry.name}",
            got=f"{len(layers)} layers with weights",
            allowed=f"{len(keras_network(entry.name).layers)}, or {len(top)} less without the top",
            todo="use the file of this network, or name the network of this file in `features.backbone`",
        )
    return found


def _kind(name: str, module: Any) -> str:
    """The class of a layer in Keras 3's files."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "batch_normalization"
    if name in TOP:
        return "conv2d" if name == "conv_preds" else "dense"
    if not isinstance(module, nn.Conv2d):
        return "separable_conv2d"
    return "depthwise_conv2d" if module.groups > 1 else "conv2d"


def _fill(network: Any, modules: dict[str, str], name: str, arrays: tuple[Array, ...], file: Path) -> None:
    """Puts a layer's arrays into its module.

    Raises:
        WeightsError: they are of another shape.
    """
    module = network.get_submodule(modules[name])
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        _check_count(arrays, (3, 4), name, file)
        gamma, beta, mean, variance = arrays if len(arrays) == 4 else (np.ones_like(arrays[0]), *arrays)
        values = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}
        for key, value in values.items():
            _put(getattr(module, key), value, name, file, add=key == "running_mean")
        return
    parts = [module] if isinstance(module, nn.Conv2d | nn.Linear) else [*module.children()]  # depthwise, pointwise
    _check_count(arrays, (len(parts), len(parts) + 1), name, file)
    for part, kernel in zip(parts, arrays):
        _put(part.weight, _turned(kernel, part), name, file)
    if len(arrays) > len(parts):
        _put_bias(network, modules, name, parts[-1], arrays[-1], file)


def _check_count(arrays: tuple[Array, ...], allowed: tuple[int, int], name: str, file: Path) -> None:
    if len(arrays) not in allowed:
        raise _misfit(file, name, f"{len(arrays)} arrays", f"{allowed[0]} or {allowed[1]}")


def _misfit(file: Path, name: str, got: object, allowed: object) -> WeightsError:
    return WeightsError(
        f"{file.name}: the layer {name} is of another network",
        got=got,
        allowed=str(allowed),
        todo="use the file of this network, or name the network of this file in `features.backbone`",
    )


def _put_bias(network: Any, modules: dict[str, str], name: str, conv: Any, bias: Array, file: Path) -> None:
    """A bias stays one where the network has one; before a batch norm it goes into its running mean; else the network
    gets one (ResNetV2, whose convolutions are followed by a sum)."""
    norm = modules.get(name.removesuffix("conv") + "bn")
    if conv.bias is not None:
        _put(conv.bias, bias, name, file)
    elif norm is not None:
        _put(network.get_submodule(norm).running_mean, -bias, name, file, add=True)
    else:
        conv.bias = nn.Parameter(torch.from_numpy(bias.copy()))


def _put(tensor: torch.Tensor, value: Array, name: str, file: Path, *, add: bool = False) -> None:
    """Running means begin at 0 and are added to, since a bias may come before or after."""
    if tensor.shape != value.shape:
        raise _misfit(file, name, value.shape, tuple(tensor.shape))
    new = torch.from_numpy(np.ascontiguousarray(value))
    tensor.copy_(tensor + new if add else new)


def _turned(kernel: Array, module: Any) -> Array:
    """A kernel in torch's order of dimensions. I inputs, O outputs, h x w pixels; Keras has (h, w, I, O), or (I, O) for
    a dense layer, whose I are h x w x I' where it stands behind maps; a depthwise one (h, w, I, 1)."""
    if isinstance(module, nn.Linear):
        return kernel.reshape(-1, kernel.shape[-1]).T
    height, width = module.kernel_size
    if kernel.ndim == 2:
        kernel = kernel.reshape(height, width, -1, kernel.shape[-1])
    if module.groups > 1:
        return kernel.transpose(2, 3, 0, 1)
    return kernel.transpose(3, 2, 0, 1)
