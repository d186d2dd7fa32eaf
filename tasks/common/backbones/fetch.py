"""Brings the weights of timm's hub and of Keras onto this machine. timm is imported for the former only."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ..core.errors import WeightsError, WeightsUnreachable
from ..core.files import sha256
from . import caches
from .catalogue import KERAS_FILES, KerasFile, entry_of
from .download import Remote, download
from .weights import WeightsSource, check_pinned, ways

BROKEN_CONNECTIONS = {"ConnectionError", "Timeout", "TimeoutError", "TransportError"}
"""What errors of connections are called in Python, requests and httpx."""


def fetched(backbone: str, source: WeightsSource) -> WeightsSource:
    """`source` with its file and its hash, downloaded if necessary; unchanged if it has a file or needs none.

    Raises:
        WeightsUnreachable: the server does not answer.
        WeightsError: the weights are not available, or are not the pinned ones; a file downloaded just now is removed.
    """
    if source.sha256 or source.kind not in ("hub", "keras"):
        return source
    file, new = _from_hub(backbone) if source.kind == "hub" else _from_keras(backbone, source.where)
    found = replace(source, file=file, sha256=sha256(file))
    try:
        check_pinned(backbone, found, source.pinned or found.sha256)
    except WeightsError as error:
        if not new:
            raise
        file.resolve().unlink()  # in the hub's cache the name is a link
        file.unlink(missing_ok=True)
        todo = f"correct `features.weights_sha256`, or provide that file: {ways(backbone, source.kind)}"
        raise WeightsError(f"{error.what}; removed", got=error.got, allowed=error.allowed, todo=todo) from None
    return found


def address(backbone: str, source: WeightsSource) -> str:
    """The address from which `fetched` would download missing weights; empty if there is none.

    Raises:
        WeightsError: timm knows the network, but not the tag.
    """
    from huggingface_hub import constants

    if source.kind == "keras":
        return f"{KERAS_FILES}{_keras_file(backbone, source.where).path}"
    place = caches.origin(backbone)
    return f"{constants.ENDPOINT}/{place.repository}" if place.repository else place.url


def _keras_file(backbone: str, name: str) -> KerasFile:
    entry = entry_of(backbone)
    files = {file.name: file for file in (entry.keras, entry.keras_notop)} if entry else {}
    if name not in files:
        raise WeightsError(
            f"Keras does not have these weights of {backbone}",
            got=name,
            allowed=", ".join(files) or "none",
            todo="use other weights, or give the file's path: `features.weights: keras:<path>.h5`",
        )
    return files[name]


def _from_keras(backbone: str, name: str) -> tuple[Path, bool]:
    """Into Keras' own cache, so that Keras finds it as well."""
    file = _keras_file(backbone, name)
    target = caches.keras_cache() / file.cached
    remote = Remote(
        url=f"{KERAS_FILES}{file.path}",
        what=f"Keras' weights of {backbone}",
        ways=ways(backbone, "keras"),
        algorithm="md5",
        digest=file.md5,
    )
    return target, download(remote, target)


def _from_hub(backbone: str) -> tuple[Path, bool]:
    place = caches.origin(backbone)
    if not place.repository and not place.url:
        raise WeightsError(
            f"timm's hub has no weights of {backbone}",
            got="features.weights: hub",
            allowed="a local file, an installed weights package, Keras' weights, or a tag that has weights",
            todo=ways(backbone, "hub"),
        )
    file = caches.fetched_file(place)
    if file is not None:
        return file, False
    return _from_url(backbone, place.url) if place.url else _from_hugging_face(backbone, place)


def _from_url(backbone: str, url: str) -> tuple[Path, bool]:
    """Into torch's cache, where timm itself would keep it. Such names end in the beginning of their SHA-256."""
    digest = re.search(r"-([0-9a-f]{8,})\.", url.rsplit("/", 1)[1])
    remote = Remote(
        url=url,
        what=f"timm's weights of {backbone}",
        ways=ways(backbone, "hub"),
        digest=digest[1] if digest else "",
    )
    target = caches.url_file(url)
    return target, download(remote, target)


def _from_hugging_face(backbone: str, place: caches.Origin) -> tuple[Path, bool]:
    """Into the hub's cache.

    The hub's own client throws away what has come when it is interrupted. So we bring the file to where its cache keeps
    contents (`blobs/<ETag>`), and the client finds it there and does the rest.
    """
    from huggingface_hub import hf_hub_download

    try:
        name, remote, blob = _at_hugging_face(backbone, place)
        new = download(remote, blob)
        return Path(hf_hub_download(place.repository, name, revision=place.revision)), new
    except WeightsError:
        raise
    except Exception as error:  # the hub's client and its transport each raise their own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        kind = WeightsUnreachable if _transport_failed(error) else WeightsError
        raise kind(
            f"the weights of {backbone} are not on this machine and could not be fetched from timm's hub",
            got=reason[:300],
            allowed="a local file, an installed weights package, or timm's hub",
            todo=ways(backbone, "hub"),
        ) from error


def _at_hugging_face(backbone: str, place: caches.Origin) -> tuple[str, Remote, Path]:
    """The first of `place.names` that the hub has: its name, what to ask for, and where its cache keeps the content."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    for name in place.names:
        url = hf_hub_url(place.repository, name, revision=place.revision)
        try:
            etag = get_hf_file_metadata(url).etag or ""
        except EntryNotFoundError:
            if name == place.names[-1]:
                raise
            continue
        break
    if not etag:
        raise LookupError("the hub names the file by no ETag")
    remote = Remote(
        url=url,
        what=f"timm's weights of {backbone}",
        ways=ways(backbone, "hub"),
        digest=etag if re.fullmatch("[0-9a-f]{64}", etag) else "",  # of a large file it is the SHA-256
        headers=build_hf_headers(),
    )
    folder = caches.hub_cache() / repo_folder_name(repo_id=place.repository, repo_type="model")
    return name, remote, folder / "blobs" / etag


def _transport_failed(error: BaseException | None) -> bool:
    """Whether a connection broke somewhere on the way; each library of the hub's client has errors of its own. That the
    hub has no such file is an answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    while error is not None:
        if BROKEN_CONNECTIONS & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False
