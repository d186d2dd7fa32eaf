"""Heads for anomalies in ONNX, in single precision. B images; maps of P = H x W patches with C channels; a bank of M
patches with E numbers each."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ..common.core.errors import GraftError
from ..common.heads.anomaly import AnomalyHead, restoring, smoothing
from ..common.heads.gaussian import GaussianHead
from ..common.heads.patches import PatchesHead
from ..common.heads.subspace import SubspaceHead
from ..register.packaged_eyes import LARGEST as HALF
from .builder import Builder
from .heads import single

LARGEST = 1 << 30
"""Bytes of the distances from all patches of one picture to the bank: they are in memory at a time."""


def patch_scores(build: Builder, head: AnomalyHead, maps: str) -> str:
    """(B, P), from maps (B, D); see `AnomalyHead.patch_scores`.

    Raises:
        GraftError: the head is of a kind that is not known here, or its bank is too large.
    """
    if isinstance(head, GaussianHead):
        return _gaussian(build, head, _halved(build, maps))
    patches = build.node("Reshape", _halved(build, maps), build.integers(-1, head.channels))
    if isinstance(head, PatchesHead):
        _check_size(head)
        squared = _nearest(build, head, build.node("MatMul", build.node("Sub", patches, head.mean), head.turn))
    elif isinstance(head, SubspaceHead):
        outside = build.node("MatMul", build.node("Sub", patches, head.mean), head.turn)
        squared = _squares(build, outside)
    else:
        raise GraftError("this head cannot be exported", got=head.kind, allowed="gaussian, patches or subspace")
    return build.node("Reshape", build.node("Sqrt", squared), build.integers(-1, head.height * head.width))


def _gaussian(build: Builder, head: GaussianHead, maps: str) -> str:
    """See `GaussianHead.distances`; h x w places, E channels."""
    high, wide, kept = head.mean.shape
    down_hH, across_wW = restoring(head.height, high), restoring(head.width, wide)
    rows = build.node("Reshape", maps, build.integers(-1, head.height, head.width * head.channels))
    fewer = build.node("MatMul", down_hH, rows)
    columns = build.node("Reshape", fewer, build.integers(-1, head.width, head.channels))
    chosen_CE = np.eye(head.channels, dtype=np.float32)[:, head.channels - kept :]
    places = build.node("MatMul", build.node("MatMul", across_wW, columns), np.ascontiguousarray(chosen_CE))
    x_BPE = build.node("Reshape", places, build.integers(-1, high * wide, kept))
    x_PBE = build.node("Sub", build.node("Transpose", x_BPE, perm=[1, 0, 2]), head.mean.reshape(-1, 1, kept))
    turned_PBE = build.node("MatMul", x_PBE, head.turn.reshape(-1, kept, kept))
    squared_PB = build.node("ReduceSum", build.node("Mul", turned_PBE, turned_PBE), build.integers(2), keepdims=0)
    distance_BP = build.node("Transpose", build.node("Sqrt", squared_PB), perm=[1, 0])
    distance_Bhw = build.node("Reshape", distance_BP, build.integers(-1, high, wide))
    down_Hh, across_Ww = head.enlarging()
    enlarged = build.node("MatMul", down_Hh, distance_Bhw)
    scores_BHW = build.node("MatMul", enlarged, np.ascontiguousarray(across_Ww.T))
    return build.node("Reshape", scores_BHW, build.integers(-1, head.height * head.width))


def _halved(build: Builder, maps: str) -> str:
    """See `packaged_eyes.halved`."""
    inside = build.node("Clip", maps, single(-HALF), single(HALF))
    return build.node("Cast", build.node("Cast", inside, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)


def image_score(build: Builder, head: AnomalyHead, patches: str) -> str:
    """(B,): the mean of the largest smoothed scores of patches (B, P)."""
    places = head.height * head.width
    down_HH, across_WW = smoothing(head.height, head.width)
    map_BHW = build.node("Reshape", patches, build.integers(-1, head.height, head.width))
    smooth_BHW = build.node("MatMul", build.node("MatMul", down_HH, map_BHW), np.ascontiguousarray(across_WW))
    smooth = build.node("Reshape", smooth_BHW, build.integers(-1, places))
    largest, _ = build.nodes("TopK", 2, smooth, build.integers(min(head.top, places)), axis=1)
    return build.node("ReduceMean", largest, build.integers(1), keepdims=0)


def _nearest(build: Builder, head: PatchesHead, patches: str) -> str:
    """The squared distance of each patch to the nearest of the bank, (B P, 1): |x|^2 + |b|^2 - 2 x b."""
    bank_ME = head.bank.astype(np.float32)
    product = build.node("MatMul", patches, np.ascontiguousarray(-2 * bank_ME.T))
    from_all = build.node("Add", product, np.einsum("me,me->m", bank_ME, bank_ME))
    least = build.node("ReduceMin", from_all, build.integers(1), keepdims=1)
    return build.node("Max", build.node("Add", least, _squares(build, patches)), single(0))


def _squares(build: Builder, patches: str) -> str:
    """(B P, 1)."""
    return build.node("ReduceSum", build.node("Mul", patches, patches), build.integers(1), keepdims=1)


def _check_size(head: PatchesHead) -> None:
    """Raises:
    GraftError: the distances of one picture would not fit into memory.
    """
    size = 4 * len(head.bank) * head.height * head.width
    if size > LARGEST:
        raise GraftError(
            "the bank of patches is too large to be searched in the exported file",
            got=f"{len(head.bank):,} patches, and {head.height * head.width:,} of a picture: {size / 1e9:.1f} GB",
            allowed=f"{LARGEST / 1e9:.1f} GB",
            todo="set a smaller `head.coreset`, `features.image_size` or `features.tiles`; or serve the package itself",
        )
