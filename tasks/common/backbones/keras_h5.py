"""Keras' weights files, read with h5py alone: the layers' arrays in Keras' own order.

Two layouts: the older one (`*_weights_tf_dim_ordering_tf_kernels.h5`, whole models in .h5) lists its layers in an
attribute; Keras 3's (`.weights.h5`) has a group a layer, named by class and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import WeightsError

Array = npt.NDArray[np.float32]

_KINDS = {"conv2d", "depthwise_conv2d", "separable_conv2d", "batch_normalization", "dense"}
"""The classes of Keras layers that the eighteen networks have weights in."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: as the file calls it.
        kind: its class in Keras 3's layout; empty in the older one, where layers come in order.
        arrays: kernels and biases, or gamma, beta, mean and variance (without gamma, three).
    """

    name: str
    kind: str
    arrays: tuple[Array, ...]


def read_layers(file: Path) -> list[Layer]:
    """The layers that have weights, in the order of `model.layers`; in Keras 3's layout only those of one kind are in
    order among each other.

    Raises:
        WeightsError: the file is damaged, or holds no weights of Keras.
    """
    import h5py

    try:
        with h5py.File(file, "r") as content:
            return list(_layers(content))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:  # a file of another kind
        raise WeightsError(
            f"{file.name} cannot be read as weights of Keras",
            got=(str(error) or type(error).__name__).splitlines()[0],
            allowed="an .h5 file that Keras wrote",
            todo="fetch or save the file again",
        ) from error


def _layers(content: Any) -> Iterator[Layer]:
    group = content.get("model_weights", content)
    if "layer_names" in group.attrs:
        yield from _in_order(group)
    elif "layers" in content:
        yield from _by_class(content["layers"])
    else:
        raise KeyError(f"neither `layer_names` nor `layers`; it has {', '.join(content) or 'nothing'}")


def _in_order(group: Any) -> Iterator[Layer]:
    for name in _texts(group, "layer_names"):
        arrays = tuple(_array(group[name][weight]) for weight in _texts(group[name], "weight_names"))
        if arrays:
            yield Layer(name, "", arrays)


def _texts(group: Any, attribute: str) -> list[str]:
    """An attribute of many names; HDF5 takes 64 KB at most, so that Keras cuts long ones into pieces."""
    found = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(found)}" in group.attrs:
        found.append(group.attrs[f"{attribute}{len(found)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for piece in found for name in piece]


def _by_class(group: Any) -> Iterator[Layer]:
    for name in sorted(group, key=_counted):
        kind, _ = _counted(name)
        variables = group[name].get("vars", {})
        if kind in _KINDS and len(variables):
            yield Layer(name, kind, tuple(_array(variables[number]) for number in sorted(variables, key=int)))


def _counted(name: str) -> tuple[str, int]:
    """`conv2d_12` is the thirteenth of its class, `conv2d` the first."""
    found = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert found
    return found[1], int(found[2] or 0)


def _array(dataset: Any) -> Array:
    return np.asarray(dataset, np.float32)
