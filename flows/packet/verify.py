"""`graft verify`: whether a packet is as it was written, who signed it, and whether its model can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import find_root

from ..lineage.rebuild import rebuild
from ..registry import ledger
from . import signing
from .contents import (
    INDEX,
    SIGNATURE,
    Contents,
    Document,
    digest_of,
    opened,
    read_bytes,
    read_index,
    sha256_in,
    text_of,
)
from .evidence import MODEL


def verify(packet: Path, project: Path, *, trusted: Path | None = None, again: bool = False) -> Document:
    """Checks a packet; `ok` is the conclusion.

    Args:
        packet: the folder or the zip.
        project: a folder of the project that it came from, if that is at hand.
        trusted: a public key that must have signed it.
        again: whether to rebuild the model, which needs the project.

    Raises:
        GraftError: it is no packet, the key cannot be used, or the model cannot be rebuilt.
    """
    with opened(packet) as contents:
        index = read_index(contents)
        files = _files(contents, index)
        signature = _signature(contents, index, trusted)
    registry = _registry(project, index)
    sound = not any(files.values()) and signature["state"] not in ("invalid", "not trusted")
    sound = sound and registry["state"] != "another model" and (trusted is None or signature["state"] == "valid")
    rebuilt = _rebuilt(project, index, registry) if again and sound else None
    return {
        "ok": sound and (rebuilt is None or rebuilt["equal"]),
        "packet": str(packet),
        **{key: str(index.get(key, "")) for key in ("model", "version", "digest", "model_digest", "commit", "data")},
        "files": len(index["files"]),
        **files,
        "signature": signature,
        "registry": registry,
        "rebuild": rebuilt,
    }


def _files(contents: Contents, index: Document) -> dict[str, list[str]]:
    """The files that were changed, are missing or were added, and what is wrong with the packet as a whole."""
    listed, there = index["files"], set(contents.names()) - {INDEX, SIGNATURE}
    faults, changed = list(contents.faults), [] if _is_own(contents, index) else [INDEX]
    for name in sorted(there & listed.keys()):
        wanted = listed[name].get("sha256") if isinstance(listed[name], dict) else None
        if sha256_in(contents, name) != wanted:
            changed.append(name)
    model = listed.get(MODEL, {}) if isinstance(listed.get(MODEL, {}), dict) else {}
    if f"sha256:{model.get('sha256')}" != index.get("model_digest"):
        faults.append(f"{MODEL} lists the files of another model than {INDEX} names")
    return {
        "changed": changed,
        "missing": sorted(listed.keys() - there),
        "added": sorted(there - listed.keys()),
        "faults": faults,
    }


def _is_own(contents: Contents, index: Document) -> bool:
    """Whether packet.json is as it was written: its digest fits, and so does every byte."""
    as_written = text_of(index).encode() == read_bytes(contents, INDEX)
    return as_written and index.get("digest") == digest_of(index)


def _signature(contents: Contents, index: Document, trusted: Path | None) -> Document:
    """The state of the signature: `valid`, `invalid`, `not trusted`, `unsigned` or `not checked`."""
    found = signing.check(contents, trusted)
    state, why = found.state, found.why
    if found.files is not None and dict(found.files) != _signed(contents, index):
        state, why = "invalid", "it was made for other files"
    elif state == "valid" and found.trusted is False:
        state = "not trusted"
    return {"state": state, "key": found.key, "trusted": found.trusted, "why": why}


def _signed(contents: Contents, index: Document) -> Mapping[str, Any]:
    """What a signature of this packet lists. Its files are compared with packet.json elsewhere."""
    files = {name: each.get("sha256") if isinstance(each, dict) else None for name, each in index["files"].items()}
    return {**files, INDEX: sha256_in(contents, INDEX)}


def _registry(project: Path, index: Document) -> Document:
    """Whether the project's ledger has the same digest for the version: `same`, `another model` or `not compared`."""
    name, version = str(index.get("model", "")), str(index.get("version", ""))
    try:
        known = ledger.digest_of(find_root(project), (name, version, str(index.get("run_id", ""))))
    except GraftError as error:
        return {"state": "not compared", "why": error.what}
    if not known:
        return {"state": "not compared", "why": f"the project does not know version {version} of `{name}`"}
    same = known == index.get("model_digest")
    return {"state": "same" if same else "another model", "why": "" if same else f"the ledger has {known}"}


def _rebuilt(project: Path, index: Document, registry: Document) -> Document:
    """The model is rebuilt and compared with the registered one, which is that of the packet.

    Raises:
        GraftError: the project is not that of the packet, or the model cannot be rebuilt.
    """
    if registry["state"] != "same":
        raise GraftError(
            "the model of the packet cannot be rebuilt here",
            got=registry["why"],
            todo="run this in the project that made it, or name the project with --project",
        )
    document = rebuild(find_root(project), f"{index['model']}/{index['version']}")
    same = all(each["identical"] for each in document["files"].values())
    return {
        "equal": document["equal"],
        "identical": same,
        **{key: document[key] for key in ("metrics", "seconds", "notes")},
    }
