"""Where timm and Keras keep the weights that they have fetched, and what is there already. Asks no server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import WeightsError


@dataclass(frozen=True)
class Origin:
    """Where timm's weights of a network come from.

    Attributes:
        repository: on the Hugging Face hub; empty if there is none.
        revision: of the repository; None is its main line.
        names: the files to look for in it, the best first.
        url: of the file, for networks that have no repository; empty if there is none either.
    """

    repository: str
    revision: str | None
    names: tuple[str, ...]
    url: str


HUB_NAMES = ("model.safetensors", "pytorch_model.bin")


def keras_cache() -> Path:
    """Where Keras itself keeps weights."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def torch_cache() -> Path:
    """Where torch and timm keep what they fetch by its address; as `torch.hub.get_dir` has it, without torch."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{caches}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def origin(backbone: str) -> Origin:
    """What timm says of `backbone`. Imports timm, which takes seconds.

    Raises:
        WeightsError: timm knows the network, but not the tag.
    """
    import timm

    try:
        config = timm.models.get_pretrained_cfg(backbone)
    except RuntimeError as error:
        raise WeightsError(
            "params.yaml: timm does not have these weights of the network in `features.backbone`",
            got=backbone,
            allowed=", ".join(timm.list_models(f"{backbone.split('.')[0]}.*", pretrained=True)) or "no weights at all",
            todo="correct the tag, or leave it out for timm's first choice",
        ) from error
    repository, _, revision = (getattr(config, "hf_hub_id", None) or "").partition("@")
    name = getattr(config, "hf_hub_filename", None)
    url = getattr(config, "url", None) or ""
    return Origin(repository, revision or None, (name,) if name else HUB_NAMES, "" if repository else url)


def fetched_file(place: Origin) -> Path | None:
    """The file of `place`, if it has been fetched before."""
    if place.url:
        file = url_file(place.url)
        return file if file.is_file() else None
    return _in_hub_cache(place.repository, place.revision, place.names) if place.repository else None


def url_file(url: str) -> Path:
    """What timm would call the file of `url`."""
    return torch_cache() / url.rsplit("/", 1)[1]


def _in_hub_cache(repository: str, revision: str | None, names: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repository, name, cache_dir=hub_cache(), revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_file(backbone: str) -> Path | None:
    """timm's file of `backbone`, if it has been fetched before; timm is asked only where there is something to find.

    Raises:
        WeightsError: timm knows the network, but not the tag.
    """
    found = _in_hub_cache(f"timm/{backbone}", None, HUB_NAMES) if "." in backbone else None
    return found or (fetched_file(origin(backbone)) if _may_be_elsewhere(backbone) else None)


def _may_be_elsewhere(backbone: str) -> bool:
    """Whether a cache has what only timm knows to be of `backbone`: a file that has an address, another owner's
    repository, or its own under another name."""
    own = f"models--timm--{backbone.replace('_quickgelu', '')}"  # timm keeps one file for both activations
    names = [folder.name for folder in hub_cache().glob("models--*--*")]
    others = any(name.startswith(own) or not name.startswith("models--timm--") for name in names)
    return others or any(torch_cache().glob("*.pth*"))
