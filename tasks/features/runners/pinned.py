"""What another machine needs to compute the very same features: described as JSON and files, and rebuilt there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ...common.backbones.spec import Spec
from ...common.backbones.weights import WeightsSource, same_weights
from ...common.core.errors import GraftError
from ...common.core.paths import Paths
from ...common.engines.openvino import Engine, cpu_has_fast_bf16
from ...common.maps.form import MapForm, Wanted
from ..extractor import AnyEngine, Extractor
from ..work import Eye


class Unable(GraftError):
    """This machine would compute other features than the one that pinned them."""


def describe(eye: Eye, paths: Paths) -> tuple[dict[str, Any], list[Path]]:
    """(JSON, files) of a backbone; the files are named in it and may lie anywhere."""
    extractor, spec = eye.extractor, eye.spec
    facts: dict[str, Any] = {
        "fingerprint": eye.fingerprint,
        "why": extractor.why,
        "fast": _is_fast(extractor.engine, extractor.device),
        "form": eye.form.as_dict() if eye.form else None,
    }
    if extractor.xml is not None:
        files = [extractor.xml, extractor.xml.with_suffix(".bin")]
        return facts | {"files": [file.name for file in files]}, files
    source = same_weights(spec.backbone, spec.weights, spec.weights_sha256, paths.weights)
    from ...common.backbones.network import fetched

    source = fetched(spec.backbone, source)
    files = [source.file] if source.file else []
    weights = {"kind": source.kind, "where": source.where, "sha256": source.sha256}
    return facts | {"files": [file.name for file in files], "weights": weights}, files


def restore(facts: Mapping[str, Any], files: list[Path]) -> tuple[Extractor, MapForm | None]:
    """The same backbone on this machine.

    Args:
        files: those that `describe` named, in its order.

    Raises:
        Unable: it would compute other features here.
    """
    pinned = facts["fingerprint"]
    form = MapForm.from_dict(facts["form"]) if facts["form"] else None
    spec = Spec.from_dict(pinned)
    _check_device(pinned["engine"], pinned["device"])
    _require_same({pinned["precision"]}, _is_fast(pinned["engine"], pinned["device"]), facts["fast"])
    build = _builder(facts, spec, files)
    extractor = Extractor(spec, pinned["engine"], pinned["device"], pinned["precision"], facts["why"], build)
    maps = {"maps": pinned["maps"]} if "maps" in pinned else {}
    found = extractor.fingerprint(pinned["dtype"], pinned.get("range"), **maps)
    if found["digest"] != pinned["digest"]:
        other = [f"{name} {found.get(name)} instead of {pinned[name]}" for name in found if found[name] != pinned[name]]
        raise Unable(
            "this machine would compute features of another fingerprint",
            got="; ".join(other[:3]),
            todo="install the versions of the machine that submits the job",
        )
    return extractor, form


def require_precision(precisions: Collection[str], fast: bool) -> None:
    """Args:
        precisions: in which OpenVINO is to compute.
        fast: whether the machine that pinned them has fast bf16.

    Raises:
        Unable: this machine computes bf16 in another way.
    """
    _require_same(precisions, cpu_has_fast_bf16(), fast)


def _require_same(precisions: Collection[str], fast_here: bool, fast_there: bool) -> None:
    if "bf16" in precisions and fast_here != fast_there:
        raise Unable(
            "this machine computes bf16 in another way than the one that pinned it",
            allowed="a processor with AMX, or a GPU with bf16",
            todo="set `features.precision: f32`, or use machines of one kind",
        )


def _is_fast(engine: str, device: str) -> bool:
    if engine == "openvino":
        return cpu_has_fast_bf16()
    from ...common.engines.torch import has_fast_bf16

    return has_fast_bf16(device)


def _check_device(engine: str, device: str) -> None:
    if engine != "torch" or device == "cpu":
        return
    from ...common.engines.torch import best_device

    if best_device() != device:
        raise Unable("this machine does not have the device", got=best_device(), allowed=device)


def _builder(facts: Mapping[str, Any], spec: Spec, files: list[Path]) -> Callable[[], AnyEngine]:
    pinned = facts["fingerprint"]
    if pinned["engine"] == "openvino":
        return lambda: Engine(files[0], pinned["precision"])
    return lambda: _torch_engine(facts, spec, files)


def _torch_engine(facts: Mapping[str, Any], spec: Spec, files: list[Path]) -> AnyEngine:
    import torch

    from ...common.backbones import network
    from ...common.engines.torch import TorchEngine
    from ...common.maps.network import MapNetwork

    pinned, weights = facts["fingerprint"], facts["weights"]
    source = WeightsSource(weights["kind"], weights["where"], files[0] if files else None, weights["sha256"])
    model: torch.nn.Module = network.create_again(spec, source)
    if "maps" in pinned:
        wanted = Wanted(**{**pinned["maps"]["wanted"], "depths": tuple(pinned["maps"]["wanted"]["depths"])})
        transform, n = spec.transform, wanted.tiles
        shape = (transform.channels, transform.height // n, transform.width // n)
        model = MapNetwork(model, spec.backbone, wanted, shape).eval()
    return TorchEngine(model, spec.transform, pinned["device"], pinned["precision"])


def versions(views: bool) -> dict[str, str]:
    """The versions that must be the same on all machines.

    Args:
        views: whether augmented views are computed.
    """
    import sys
    from importlib.metadata import version

    names = ["numpy", "openvino", "pillow", "timm", "torch", *(["albumentations"] if views else [])]
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python} | {name: version(name).partition("+")[0] for name in names}


def require_versions(pinned: Mapping[str, str]) -> None:
    """Raises:
    Unable: this machine has other versions than those that `versions` gave on another one.
    """
    found = versions("albumentations" in pinned)
    other = [f"{name} {found[name]} instead of {known}" for name, known in pinned.items() if found[name] != known]
    if other:
        raise Unable(
            "this machine has other versions than the one that submitted the job",
            got=", ".join(other),
            todo="install the same versions on all machines, for instance from one requirements.txt or one image",
        )
