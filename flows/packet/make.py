"""`graft packet`: the packet of a version, as a folder and as a zip, and in MLflow."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import whole_folder
from graft.tasks.common.core.progress import say

from ..lineage.trace import Lineage
from ..lineage.trace_page import lineage_page
from ..registry.description import with_card
from ..registry.models import find_version
from ..tracking.tracker import Tracker
from . import bom, card, contents, croissant, events, signing, statement
from .evidence import gather
from .facts import Document, Facts
from .pages import write_pages

PACKETS = "packets"
"""The folder of a project for its packets."""

TAG = "graft.packet"
"""The tag of a version with the digest of its newest packet; its files are among the artifacts of the version's run, in
`packet/` and the first digits of the digest."""

DIGITS = 12


def make_packet(
    root: Path, wanted: str, output: Path | None = None, *, zipped: bool = False, key: Path | None = None
) -> Document:
    """Makes the packet of a version, logs it to the version's run in MLflow, and puts the card into its description.

    Args:
        wanted: NAME@alias, NAME/3, an alias or a number.
        output: the folder to write; packets/NAME-VERSION in the project for None.
        zipped: whether to write a zip beside it too.
        key: a private key to sign it with.

    Raises:
        GraftError: there is no such version, its model cannot be fetched or is another one, the folder holds something
            else, or the key cannot be used; nothing is written then.
    """
    if key is not None:
        signing.require_extra()
    lineage = Lineage(root)
    records = lineage.records
    version = records.named(wanted) or find_version(records.tracker, records.name, wanted)
    target = (output or root / PACKETS / f"{version.name}-{version.version}").absolute()
    _refuse_other(target)
    with whole_folder(target) as part:
        facts = gather(lineage, version, part)
        index = _write(facts, signed=key is not None)
        signed_by = signing.sign(part, key, index) if key is not None else ""
    archive = target.with_name(f"{target.name}.zip")
    if zipped:
        contents.write_zip(target, archive)
    _log(records.tracker, version, target, index["digest"], facts)
    return {
        "name": version.name,
        "version": str(version.version),
        "folder": str(target),
        "zip": str(archive) if zipped else "",
        "digest": index["digest"],
        "signed_by": signed_by,
        "files": len(index["files"]),
        "bytes": sum(each["bytes"] for each in index["files"].values()),
        "missing": dict(sorted(facts.missing.items())),
        "not_stated": [name for name, text in facts.card.model_dump().items() if not text],
    }


def _refuse_other(target: Path) -> None:
    """Raises:
    GraftError: the target holds something other than a packet.
    """
    if target.exists() and not (target / contents.INDEX).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise GraftError(
            "the folder for the packet holds something else", got=target, todo="name another one with --output"
        )


def _write(facts: Facts, *, signed: bool) -> Document:
    """Writes all documents, and at last packet.json; returns its content."""
    facts.write_json("trace.json", facts.trace)
    facts.write("trace.html", lineage_page(facts.trace, facts.trace["registered"]))
    facts.write(card.NAME, card.card(facts))
    facts.write_json(bom.NAME, bom.bom(facts))
    facts.write(events.NAME, events.lines(facts))
    facts.write_json(croissant.NAME, croissant.croissant(facts))
    facts.write_json(statement.NAME, statement.statement(facts))
    write_pages(facts, signed=signed)
    index = contents.index_of(facts.folder, _about(facts))
    (facts.folder / contents.INDEX).write_text(contents.text_of(index), encoding="utf-8")
    return index


def _about(facts: Facts) -> dict[str, Any]:
    trace = facts.trace
    return {
        "model": trace["name"],
        "version": trace["version"],
        "run_id": trace["register_run_id"],
        "model_digest": facts.digest,
        "commit": trace["code"]["commit"],
        "data": trace["data"]["raw"],
        "graft": installed_version("graft"),
        "missing": dict(sorted(facts.missing.items())),
    }


def _log(tracker: Tracker, version: ModelVersion, folder: Path, digest: str, facts: Facts) -> None:
    """Logs a packet that MLflow does not have yet, and its card.

    Raises:
        GraftError: the store cannot be written to.
    """
    tracker.require_writable()
    place = f"packet/{digest.removeprefix('sha256:')[:DIGITS]}"
    tracker.client.log_artifacts(str(version.run_id), str(folder), place)
    tracker.client.set_model_version_tag(version.name, version.version, TAG, digest)
    before = tracker.client.get_model_version(version.name, version.version).description or ""
    more = f"The whole card is among the artifacts of the version's run, in `{place}/{card.NAME}`."
    tracker.client.update_model_version(version.name, version.version, with_card(before, card.parts(facts), more))
    say(f"packet: logged to MLflow, run {version.run_id}, {place}")
