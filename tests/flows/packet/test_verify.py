"""`graft verify`: any changed byte is found, and who signed is known."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from graft.flows.packet import signing, verify
from graft.flows.packet.contents import write_zip
from graft.flows.packet.verify import verify as check
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import read_json

if TYPE_CHECKING:
    from .conftest import Made

STATES = ("changed", "missing", "added", "faults")


def write_keys(folder: Path, name: str, key: Any, password: bytes | None = None) -> tuple[Path, Path]:
    """A private key and its public one, as PEM."""
    files = folder / f"{name}.pem", folder / f"{name}.pub"
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    files[0].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    files[1].write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return files


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), "mine", Ed25519PrivateKey.generate())


@pytest.fixture
def signed(made: Made, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    """A signed packet of the test's own."""
    folder = Path(shutil.copytree(made.folder, tmp_path / "graft-1"))
    signing.sign(folder, keys[0], read_json(folder / "packet.json"))
    return folder


def holds(packet: Path, folder: Path) -> bool:
    """Whether a packet is found to be as it was written; not, if it cannot even be read."""
    try:
        return bool(check(packet, folder)["ok"])
    except GraftError:
        return False


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_changed_byte_in_any_file_of_the_folder_is_found(signed: Path, tmp_path: Path) -> None:
    assert check(signed, tmp_path)["ok"]

    for file in sorted(file for file in signed.rglob("*") if file.is_file()):
        whole = file.read_bytes()
        for place in {len(whole) // 2, len(whole) - 1} if whole else ():
            flip(file, place)
            assert not holds(signed, tmp_path), f"{file}, byte {place}"
            file.write_bytes(whole)


def test_a_changed_byte_anywhere_in_the_zip_is_found(signed: Path, tmp_path: Path) -> None:
    packed = tmp_path / "graft-1.zip"
    write_zip(signed, packed)
    assert check(packed, tmp_path)["ok"]

    size = packed.stat().st_size
    for place in {*range(0, 60, 7), *range(size // 2, size, size // 30), *range(size - 400, size, 23)}:
        flip(packed, place)
        assert not holds(packed, tmp_path), place
        flip(packed, place)
    with packed.open("ab") as file:
        file.write(b"more")
    assert not check(packed, tmp_path)["ok"]


def test_missing_and_added_files_and_links_are_named(signed: Path, tmp_path: Path) -> None:
    (signed / "gate.md").unlink()
    (signed / "more.txt").write_text("more", encoding="utf-8")
    (signed / "link").symlink_to(tmp_path)

    found = check(signed, tmp_path)

    assert (found["ok"], found["missing"], found["added"]) == (False, ["gate.md"], ["more.txt"])
    assert found["faults"] == ["link is no regular file"]


def test_a_hostile_zip_is_refused_without_unpacking_it(made: Made, tmp_path: Path) -> None:
    packed = tmp_path / "hostile.zip"
    shutil.copyfile(made.zip, packed)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("graft-1/../../outside", "x")
        file.writestr("graft-1/bomb", b"0" * 10_000_000)

    found = check(packed, tmp_path)

    assert not found["ok"]
    assert len(found["faults"]) >= 2
    assert [file.name for file in tmp_path.iterdir()] == ["hostile.zip"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_signature_says_whose_key_it_is(
    made: Made, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate() if kind == "ed25519" else generate_ec(SECP384R1())
    private, public = write_keys(tmp_path, kind, key, b"word")
    _, other = write_keys(tmp_path, "other", Ed25519PrivateKey.generate())
    folder = Path(shutil.copytree(made.folder, tmp_path / "graft-1"))
    index = read_json(folder / "packet.json")
    with pytest.raises(GraftError, match="not a private key"):
        signing.sign(folder, private, index)
    monkeypatch.setenv(signing.PASSWORD, "word")

    signing.sign(folder, private, index)

    mine, theirs, anybodys = (check(folder, tmp_path, trusted=file) for file in (public, other, None))
    assert (mine["ok"], mine["signature"]["state"], mine["signature"]["trusted"]) == (True, "valid", True)
    assert (theirs["ok"], theirs["signature"]["state"]) == (False, "not trusted")
    assert (anybodys["ok"], anybodys["signature"]["state"], anybodys["signature"]["trusted"]) == (True, "valid", None)


def test_a_packet_that_was_changed_and_listed_again_does_not_fit_its_signature(signed: Path, tmp_path: Path) -> None:
    from graft.flows.packet.contents import INDEX, index_of, text_of

    (signed / "labels.csv").write_text("other\n", encoding="utf-8")
    before = read_json(signed / INDEX)
    about = {key: value for key, value in before.items() if key not in ("format", "files", "digest")}
    (signed / INDEX).write_text(text_of(index_of(signed, about)), encoding="utf-8")

    found = check(signed, tmp_path)

    assert [found[state] for state in STATES] == [[], [], [], []]
    assert (found["ok"], found["signature"]["state"]) == (False, "invalid")


def test_an_unsigned_packet_is_said_to_be_so_and_fails_where_a_key_is_asked_for(
    made: Made, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    found, asked = check(made.folder, tmp_path), check(made.zip, tmp_path, trusted=keys[1])

    assert (found["ok"], found["signature"]["state"]) == (True, "unsigned")
    assert (asked["ok"], asked["signature"]["state"]) == (False, "unsigned")


def test_keys_of_other_kinds_and_other_files_are_refused(made: Made, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "rsa", generate_rsa(65537, 2048))
    index = read_json(made.folder / "packet.json")
    (tmp_path / "text.pem").write_text("no key", encoding="utf-8")

    for file in (private, tmp_path / "text.pem", tmp_path / "absent"):
        with pytest.raises(GraftError, match="not a private key"):
            signing.sign(made.folder, file, index)
    with pytest.raises(GraftError, match="not a public key"):
        check(made.folder, tmp_path, trusted=public)
    with pytest.raises(GraftError, match="there is no such packet"):
        check(tmp_path / "absent", tmp_path)
    assert not (made.folder / "signature.json").exists()


def test_the_commands_say_what_they_did_and_found(made: Made, keys: tuple[Path, Path], tmp_path: Path) -> None:
    project = made.project.copy(tmp_path / "project")

    told = project.graft_here("packet", "champion", "--zip", "--sign", str(keys[0]), "--output", "out")
    assert f"{'signature':<12}none" not in told.stdout
    assert "declaration" in told.stdout
    found = json.loads(project.graft_here("verify", "out.zip", "--key", str(keys[1]), "--json").stdout)
    assert (found["ok"], found["registry"]["state"], found["rebuild"]) == (True, "same", None)
    flip(project.root / "out" / "gate.md", 3)
    done = project.graft_here("verify", "out", check=False)
    assert (done.returncode, "changed     gate.md" in done.stdout) == (3, True)
    assert "whose key this is" in done.stdout


@pytest.mark.parametrize("equal", [True, False])
def test_a_rebuild_decides_the_exit_code(made: Made, equal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rebuilt(root: Path, wanted: str) -> dict[str, Any]:
        asked.append(wanted)
        return {"equal": equal, "files": {"a": {"identical": equal}}, "metrics": {}, "seconds": 1.0, "notes": []}

    monkeypatch.setattr(verify, "rebuild", rebuilt)

    done = made.project.graft_here("verify", str(made.folder), "--rebuild", check=False)

    assert (asked, done.returncode) == (["graft/1"], 0 if equal else 3)
    assert ("equal test metrics, with identical files" in done.stdout) == equal


def test_a_rebuild_needs_the_project_of_the_packet(made: Made, tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="cannot be rebuilt here"):
        check(made.folder, tmp_path, again=True)
