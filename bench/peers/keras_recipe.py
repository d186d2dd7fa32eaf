"""Weights for Keras' networks from a seed, and images to feed: the same numbers wherever numpy is.

Batch norms get statistics that are far from none. Layers are written as Keras' published files are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Layer = tuple[str, Sequence[npt.NDArray[np.float32]]]


def images(side: int) -> npt.NDArray[np.uint8]:
    """Four images (4, side, side, 3), RGB: blocks of colours with noise, so that they differ at every scale."""
    random = np.random.default_rng(20)
    coarse = random.integers(0, 256, (4, -(-side // 32), -(-side // 32), 3))
    blocks = coarse.repeat(32, axis=1).repeat(32, axis=2)[:, :side, :side]
    return (blocks + random.integers(-40, 41, blocks.shape)).clip(0, 255).astype(np.uint8)


def weights(shapes: Iterable[tuple[str, Sequence[Shape]]], seed: int) -> Iterator[Layer]:
    """A layer's arrays for each (name, shapes): kernels as He et al. 2015 start them, the rest at random."""
    random = np.random.default_rng(seed)
    for name, layer in shapes:
        is_norm = len(layer[0]) == 1
        yield name, _norm(random, layer) if is_norm else [_kernel(random, shape) for shape in layer]


def _norm(random: np.random.Generator, shapes: Sequence[Shape]) -> list[npt.NDArray[np.float32]]:
    """Gamma (not in every network), beta, mean, variance."""
    scales = [random.uniform(0.5, 1.5, shapes[0])] if len(shapes) == 4 else []
    beta, mean = (random.normal(0, 0.2, shapes[0]) for _ in range(2))
    return [array.astype(np.float32) for array in [*scales, beta, mean, random.uniform(0.5, 2.0, shapes[0])]]


def _kernel(random: np.random.Generator, shape: Shape) -> npt.NDArray[np.float32]:
    """A bias, or a kernel; of a depthwise one, (h, w, C, 1), each output sees one input."""
    if len(shape) == 1:
        return random.normal(0, 0.2, shape).astype(np.float32)
    seen = np.prod(shape[:-1]) if shape[-1] > 1 else np.prod(shape[:-2])
    return (random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / seen))).astype(np.float32)


def write(file: Path, layers: Iterable[Layer]) -> None:
    """The layout of `*_weights_tf_dim_ordering_tf_kernels.h5`."""
    names = []
    with h5py.File(file, "w") as content:
        for name, arrays in layers:
            group = content.create_group(name)
            for number, array in enumerate(arrays):
                group[f"{name}/{number}:0"] = array
            _attribute(group, "weight_names", [f"{name}/{number}:0" for number in range(len(arrays))])
            names.append(name)
        _attribute(content, "layer_names", names)
        content.attrs["backend"], content.attrs["keras_version"] = b"tensorflow", b"2.2.4"


def _attribute(group: Any, key: str, texts: list[str]) -> None:
    """HDF5 takes 64 KB in an attribute: longer lists go into `key0`, `key1`, as in Keras' own files."""
    encoded = np.array([text.encode() for text in texts])
    pieces = -(-encoded.nbytes // 60_000)
    if pieces < 2:
        group.attrs[key] = encoded
        return
    for number, piece in enumerate(np.array_split(encoded, pieces)):
        group.attrs[f"{key}{number}"] = piece
