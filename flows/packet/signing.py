"""The signature of a packet: an in-toto statement about all its files, in a DSSE envelope.

It needs the extra `signing`. Keys are PEM files: Ed25519, or ECDSA on a NIST curve.
https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graft.tasks.common.core.errors import GraftError

from .contents import SIGNATURE, Contents, read_bytes, read_document, text_of
from .facts import GRAFT
from .statement import STATEMENT

PAYLOAD = "application/vnd.in-toto+json"

PREDICATE = f"{GRAFT}:audit-packet:v1"

PASSWORD = "GRAFT_SIGNING_PASSWORD"
"""The variable with the password of the private key, if it has one."""


@dataclass(frozen=True)
class Verified:
    """Attributes:
    state: `valid`, `invalid`, `unsigned`, or `not checked`, without the extra.
    key: the id of the public key; empty without a signature.
    trusted: whether it is the key that was given; None if none was.
    why: what is wrong.
    files: file -> SHA-256, as signed.
    """

    state: str
    key: str = ""
    trusted: bool | None = None
    why: str = ""
    files: Mapping[str, str] | None = None


def require_extra() -> None:
    """Raises:
    GraftError: the extra is not installed.
    """
    if not installed():
        raise GraftError(
            "signatures need the extra `signing`",
            got="the package securesystemslib is not installed",
            todo="pip install 'graft[signing]'",
        )


def installed() -> bool:
    return find_spec("securesystemslib") is not None


def sign(folder: Path, key: Path, index: Mapping[str, Any]) -> str:
    """Writes signature.json; returns the id of the key.

    Raises:
        GraftError: the key cannot be used, or the extra is not installed.
    """
    require_extra()
    from securesystemslib.dsse import Envelope

    signer, public = _signer(key)
    names = {**{name: each["sha256"] for name, each in index["files"].items()}, **_own(folder)}
    content = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha}} for name, sha in sorted(names.items())],
        "predicateType": PREDICATE,
        "predicate": {**{key: index[key] for key in ABOUT}, "packet": index["digest"], "publicKey": public},
    }
    envelope = Envelope(json.dumps(content, sort_keys=True).encode(), PAYLOAD, {})
    signature = envelope.sign(signer)
    (folder / SIGNATURE).write_text(text_of(envelope.to_dict()), encoding="utf-8")
    return str(signature.keyid)


ABOUT = ("model", "version", "model_digest", "commit", "data")
"""What packet.json says about the model, which is signed once more, for those who read only the signature."""


def _own(folder: Path) -> dict[str, str]:
    from .contents import INDEX, Folder, sha256_in

    return {INDEX: sha256_in(Folder(folder), INDEX)}


def _signer(file: Path) -> tuple[Any, str]:
    """The signer of a private key, and its public key as PEM.

    Raises:
        GraftError: the file is no private key of these kinds.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    password = os.environ.get(PASSWORD)
    with _key_errors(file, "private"):
        key = load_pem_private_key(file.read_bytes(), password.encode() if password else None)
        _require_kind(key, file)
        return CryptoSigner(key), _pem(key.public_key())  # type: ignore[arg-type]


@contextmanager
def _key_errors(file: Path, kind: str) -> Iterator[None]:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise GraftError(
            f"{file} is not a {kind} key that can be used",
            got=str(error).split("\n")[0][:200],
            allowed=f"a PEM file: Ed25519, or ECDSA on a NIST curve; a password is read from {PASSWORD}",
            todo="openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub",
        ) from error


def _require_kind(key: Any, file: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    kinds = (
        ec.EllipticCurvePrivateKey,
        ec.EllipticCurvePublicKey,
        ed25519.Ed25519PrivateKey,
        ed25519.Ed25519PublicKey,
    )
    if not isinstance(key, kinds):
        raise ValueError(f"a key of another kind: {type(key).__name__}")


def _pem(public: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def check(contents: Contents, trusted: Path | None) -> Verified:
    """Checks the signature, but not the files.

    Args:
        trusted: a file with the public key that must have signed; None for any key.

    Raises:
        GraftError: the file is no public key; or one was given, and the extra is not installed.
    """
    given = _public_key(trusted) if trusted is not None else None
    if SIGNATURE not in contents.names():
        return Verified("unsigned")
    if not installed():
        return Verified("not checked", why="the extra `signing` is not installed")
    from cryptography.exceptions import UnsupportedAlgorithm
    from securesystemslib.exceptions import Error

    try:
        return _checked(contents, given)
    except (GraftError, Error, UnsupportedAlgorithm, ValueError, KeyError, TypeError, AttributeError) as error:
        return Verified("invalid", why=f"{SIGNATURE} is not a signature of Graft's: {error}".split("\n")[0][:300])


def _public_key(file: Path) -> Any:
    require_extra()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    with _key_errors(file, "public"):
        key = load_pem_public_key(file.read_bytes())
        _require_kind(key, file)
        return SSlibKey.from_crypto(key)  # type: ignore[arg-type]


def _checked(contents: Contents, given: Any) -> Verified:
    """Raises:
    ValueError, KeyError, TypeError: it is not a signature as Graft writes it.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    envelope = Envelope.from_dict(read_document(contents, SIGNATURE))
    if text_of(envelope.to_dict()).encode() != read_bytes(contents, SIGNATURE):
        raise ValueError("its bytes were changed")
    content = json.loads(envelope.payload)
    public = load_pem_public_key(content["predicate"]["publicKey"].encode())
    _require_kind(public, Path(SIGNATURE))
    key = SSlibKey.from_crypto(public)  # type: ignore[arg-type]
    try:
        envelope.verify([key], 1)
    except VerificationError:
        return Verified("invalid", key.keyid, why="the signature does not fit")
    if envelope.payload_type != PAYLOAD or content["predicateType"] != PREDICATE or len(envelope.signatures) != 1:
        raise ValueError("it signs something else")
    trusted = None if given is None else given.keyid == key.keyid
    files = {each["name"]: each["digest"]["sha256"] for each in content["subject"]}
    return Verified("valid", key.keyid, trusted, "" if trusted is not False else "another key has signed", files)
