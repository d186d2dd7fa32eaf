"""How features are computed: the engine, its precision, and the fingerprint that identifies the results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

from ..common.backbones.catalogue import timm_name
from ..common.backbones.graph import Graph, backbone_graph, settled
from ..common.backbones.spec import Form, Size, Spec
from ..common.backbones.weights import WeightsSource, find_weights
from ..common.core.files import json_digest, read_json, write_shared_json
from ..common.core.paths import Paths
from ..common.engines.openvino import Engine, Features, Precision, choose_precision, cpu_has_fast_bf16
from ..common.images.decode import Pixels
from ..common.images.deep import Range
from .params import FeaturesParams

EXTRACTOR = 2
"""Increased whenever a change in the code changes the features of an image."""

SAMPLE = 64
"""Images on which a faster precision is compared with fp32."""


class AnyEngine(Protocol):
    """The interface of all engines."""

    def __call__(self, pixels: Pixels) -> Features: ...

    def stream(
        self, load: Callable[[int], Pixels], count: int, threads: int | None = None
    ) -> Iterator[tuple[int, Features]]: ...

    def rest(self) -> None: ...


@dataclass(frozen=True)
class Extractor:
    """A way to compute features, not yet started.

    Attributes:
        spec: the backbone.
        engine: `openvino` or `torch`.
        device: `cpu`, `cuda` or `mps`.
        precision: of the arithmetic, and `why` it was chosen.
        build: starts the engine.
        xml: the graph that it runs; None with torch.
    """

    spec: Spec
    engine: str
    device: str
    precision: Precision
    why: str
    build: Callable[[], AnyEngine]
    xml: Path | None = None

    def fingerprint(self, dtype: str, span: Range | None = None, **more: Any) -> dict[str, Any]:
        """Everything that determines the features of an image, and `digest`, its hash.

        Args:
            span: the range of grey images of more than 8 bits, if the data have some.
            more: what else determines them.
        """
        facts = {
            **asdict(self.spec),
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "dtype": dtype,
            "decoder": f"pillow {version('pillow')}",
            "extractor": EXTRACTOR,
            **({"range": span} if span else {}),
            **more,
        }
        return {**facts, "digest": json_digest(facts)}


def choose_extractor(
    params: FeaturesParams, channels: int, paths: Paths, sample: Callable[[Spec], Sequence[Pixels]]
) -> Extractor:
    """OpenVINO, or torch where there is a GPU, as `features.engine` says.

    Args:
        channels: of the images.
        sample: a few images, on which a faster precision is compared with fp32.

    Raises:
        ParamsError: the backbone is unknown, or does not take images of this size or number of channels; or there are
            several, see `FeaturesParams.eyes`.
        WeightsError: the weights are missing, or belong to another network.
    """
    eye = params.eye
    backbone = timm_name(eye.backbone, eye.weights)
    form = Form(params.output, channels, _size(eye.image_size))
    source = find_weights(backbone, eye.weights, paths.weights, eye.weights_sha256, form.output)
    form = settled(form, backbone, source, paths.cache)
    if params.engine == "torch" or (params.engine == "auto" and _has_gpu()):
        return _with_torch(params, backbone, form, source, paths, sample)
    return _with_openvino(
        params, backbone_graph(backbone, source, paths.cache, form).showing(params.crop), paths, sample
    )


def _size(asked: tuple[int, int] | Literal["train"] | None) -> Size:
    if asked is None:
        return "test"
    return None if asked == "train" else asked


def _has_gpu() -> bool:
    """torch, whose import takes seconds, is imported only where there may be a GPU: NVIDIA, WSL, AMD or Apple."""
    devices = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    if sys.platform != "darwin" and not any(Path(device).exists() for device in devices):
        return False
    from ..common.engines.torch import best_device

    return best_device() != "cpu"


def _with_openvino(
    params: FeaturesParams, graph: Graph, paths: Paths, sample: Callable[[Spec], Sequence[Pixels]]
) -> Extractor:
    def build(precision: Precision) -> Engine:
        return Engine(graph.xml, precision)

    precision, why = _settle(params, graph.spec, "openvino cpu", build, cpu_has_fast_bf16(), paths, sample)
    return Extractor(graph.spec, "openvino", "cpu", precision, why, lambda: build(precision), graph.xml)


def _with_torch(
    params: FeaturesParams,
    backbone: str,
    form: Form,
    source: WeightsSource,
    paths: Paths,
    sample: Callable[[Spec], Sequence[Pixels]],
) -> Extractor:
    from ..common.backbones import network
    from ..common.engines.torch import TorchEngine, best_device, has_fast_bf16

    source = network.fetched(backbone, source)
    model = network.create(backbone, source, form)
    spec = network.spec_of(model, backbone, source, form).showing(params.crop)
    device = best_device()

    def build(precision: Precision) -> TorchEngine:
        return TorchEngine(model, spec.transform, device, precision)

    precision, why = _settle(params, spec, f"torch {device}", build, has_fast_bf16(device), paths, sample)
    return Extractor(spec, "torch", device, precision, why, lambda: build(precision))


def _settle(
    params: FeaturesParams,
    spec: Spec,
    runs_on: str,
    build: Callable[[Precision], AnyEngine],
    fast: bool,
    paths: Paths,
    sample: Callable[[Spec], Sequence[Pixels]],
) -> tuple[Precision, str]:
    """The precision, compared once and then remembered: another sample must not change the fingerprint."""
    key = json_digest({**asdict(spec), "runs_on": runs_on, "wanted": params.precision, "fast": fast})
    memory = paths.cache / "precision" / f"{key}.json"
    with suppress(FileNotFoundError, ValueError):  # none yet, or truncated by a crash
        known = read_json(memory)
        return known["precision"], known["why"]
    precision, why = choose_precision(build, params.precision, lambda: sample(spec), fast=fast)
    write_shared_json(memory, {"backbone": spec.backbone, "runs_on": runs_on, "precision": precision, "why": why})
    return precision, why
