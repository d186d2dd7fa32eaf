"""Folders that this machine and the nodes of a cluster share: the DVC remote, and the exchange for jobs and results.

They are reached as DVC reaches a remote, with its configuration. What a job tells its nodes of it has no secrets: each
node has its own, in its environment or in DVC's global or system configuration.
"""

from __future__ import annotations

import errno
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from graft.tasks.addresses import redacted, without_secrets
from graft.tasks.common.core.errors import GraftError, ParamsError, TransientError

FOLDER = "graft"
"""The exchange, in the DVC remote."""

WAITS = (0.2, 1.0, 4.0)
"""Seconds before an operation that failed is tried again."""

SECRET = re.compile(r"password|passphrase|secret|token|account_key|key_id|customer_key|connection_string|command|ask_")
"""Settings of a remote that are kept from nodes."""

PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, GraftError)
"""Errors that do not disappear on another try."""

WHOLE = frozenset({"s3", "gs", "azure", "oss"})
"""Protocols whose files appear when they are whole."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """How to reach a folder, as told to nodes.

    Attributes:
        remote: the name of DVC's remote; empty if there is none.
        settings: of the remote, without secrets: `url`, `user`, `endpointurl`, ...
        below: the folder in it.
    """

    remote: str
    settings: dict[str, Any]
    below: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Folder:
    """A folder of a remote. A failed operation is tried again; a name is relative to the folder, with `/`.

    Args:
        fs: of DVC, from `open_place`.
        root: the folder's path in it.
    """

    def __init__(self, fs: Any, root: str) -> None:
        self.fs, self.root = fs.fs, root
        self._join, self._whole = fs.join, fs.protocol in WHOLE

    def below(self, name: str) -> Folder:
        other: Folder = object.__new__(Folder)
        other.fs, other._join, other._whole = self.fs, self._join, self._whole
        other.root = self.path(name)
        return other

    def path(self, name: str) -> str:
        return str(self._join(self.root, *name.split("/"))) if name else self.root

    def get(self, name: str) -> bytes | None:
        """The content of a file; None if there is none.

        Raises:
            TransientError: the remote does not answer.
        """
        try:
            return bytes(patiently(lambda: self.fs.cat_file(self.path(name)), self.path(name)))
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return bool(patiently(lambda: self.fs.exists(self.path(name)), self.path(name)))

    def get_file(self, name: str, target: Path) -> None:
        """Copies a file to `target`, as a stream.

        Raises:
            FileNotFoundError: there is none.
            TransientError: the remote does not answer.
        """
        patiently(lambda: self.fs.get_file(self.path(name), str(target)), self.path(name))

    def put(self, name: str, content: bytes) -> None:
        """Writes a small file, which is whole or absent.

        Raises:
            TransientError: the remote does not answer.
        """
        self._place(name, lambda path: self.fs.pipe_file(path, content))

    def put_file(self, source: Path, name: str) -> None:
        """The same with the content of a file."""
        self._place(name, lambda path: self.fs.put_file(str(source), path))

    def _place(self, name: str, write: Callable[[str], Any]) -> None:
        path = self.path(name)

        def attempt() -> None:
            self.fs.makedirs(self.fs._parent(path), exist_ok=True)
            if self._whole:
                write(path)
                return
            part = f"{path}.{secrets.token_hex(4)}.part"
            try:
                write(part)
                self._rename(part, path)
            except BaseException:
                with suppress(Exception):
                    self.fs.rm_file(part)
                raise

        patiently(attempt, path)

    def _rename(self, part: str, path: str) -> None:
        """Some remotes do not rename over an existing file."""
        try:
            self.fs.mv(part, path)
        except Exception:
            if not self.fs.exists(path):
                raise
            self.fs.rm_file(path)
            self.fs.mv(part, path)

    def names(self) -> list[str]:
        """Of the files and folders in it; none if it does not exist.

        Raises:
            TransientError: the remote does not answer.
        """

        def attempt() -> list[str]:
            self.fs.invalidate_cache()
            return [str(path).rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.root, detail=False)]

        try:
            return sorted(patiently(attempt, self.root))
        except FileNotFoundError:
            return []

    def read(self, name: str, how: Callable[[BinaryIO], T]) -> T:
        """What `how` finds in a file; it may read parts of it.

        Raises:
            FileNotFoundError: there is none.
            TransientError: the remote does not answer.
        """

        def attempt() -> T:
            with self.fs.open(self.path(name), "rb") as file:
                return how(file)

        return patiently(attempt, self.path(name))

    def remove(self) -> None:
        """Removes the folder with all that is in it, if it exists and the remote lets us."""
        with suppress(FileNotFoundError, TransientError, PermissionError):
            patiently(lambda: self.fs.rm(self.root, recursive=True), self.root)


def patiently(attempt: Callable[[], T], what: str) -> T:
    """The result of `attempt`, which is tried again after most errors: remotes fail now and then.

    Raises:
        TransientError: it failed each time.
        OSError: the disk is full; the file does not exist, or must not be read.
    """
    for wait in (*WAITS, None):
        try:
            return attempt()
        except PERMANENT:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if wait is None:
                raise TransientError(
                    f"{without_secrets(what)} does not answer",
                    got=redacted(f"{type(error).__name__}: {error}".splitlines()[0]),
                    todo="check the network and the remote, then run again",
                ) from error
            time.sleep(wait)
    raise AssertionError("unreachable")


def place_of_remote(config: Mapping[str, Any], name: str) -> Place:
    """DVC's remote, as it may be told to nodes.

    Args:
        config: DVC's configuration of the project.
    """
    from dvc.fs import get_fs_config

    settings = {key: value for key, value in get_fs_config(config, name=name).items() if not SECRET.search(key)}
    return Place(name, {**settings, "url": without_secrets(str(settings["url"]))})


def place_of_exchange(config: Mapping[str, Any], remote: str, address: str | None) -> Place:
    """The exchange: a folder in the remote, or what `compute.exchange` names.

    Raises:
        ParamsError: the address cannot be understood.
    """
    if address is None:
        whole = place_of_remote(config, remote)
        return Place(whole.remote, whole.settings, FOLDER)
    scheme, found, rest = address.partition("://")
    if scheme == "remote" and found:
        name, _, below = rest.partition("/")
        if name.lower() not in config["remote"]:
            raise ParamsError(
                "params.yaml: `compute.exchange` names a remote that DVC does not know",
                got=address,
                allowed=", ".join(f"remote://{known}/..." for known in config["remote"]) or "an address",
                todo="correct it, or add the remote with `dvc remote add`",
            )
        whole = place_of_remote(config, name)
        return Place(whole.remote, whole.settings, below.strip("/") or FOLDER)
    if found and without_secrets(address) != address:
        raise ParamsError(
            "params.yaml: `compute.exchange` must not have a password, which all who see the file would know",
            got=without_secrets(address),
            todo="add a remote for it (`dvc remote add`), its password with --local, and say remote://NAME/folder",
        )
    return Place("", {"url": address if found else str(Path(address).resolve())})


def open_place(place: Place, config: Mapping[str, Any] | None = None) -> Folder:
    """A folder, to read and write.

    Args:
        config: DVC's configuration of the project, with its secrets; by default, on a node, that of the machine.

    Raises:
        GraftError: DVC lacks what this kind of remote needs, or does not know the settings.
    """
    from dvc.config import ConfigError
    from dvc.fs import get_cloud_fs
    from dvc_objects.fs.errors import RemoteMissingDepsError

    own = _own_settings(_machine_config() if config is None else config, place)
    if config is None:
        own.pop("url", None)  # a node's own remote of this name may be another one
    settings = {**place.settings, **own}
    if "keyfile" in settings and not Path(str(settings["keyfile"])).expanduser().is_file():
        del settings["keyfile"]  # of the submitter's machine
    try:
        kind, known, root = get_cloud_fs({}, **settings)
        fs = kind(**known)
    except (ConfigError, RemoteMissingDepsError) as error:
        raise GraftError(
            f"DVC cannot open {without_secrets(str(settings['url']))}",
            got=redacted(" ".join(str(error).split())),
            todo="install what DVC needs for this kind of remote on this machine and on the nodes, such as `dvc-ssh`",
        ) from error
    whole = Folder(fs, root)
    return whole.below(place.below) if place.below else whole


def _machine_config() -> Mapping[str, Any]:
    """DVC's system and global configuration."""
    from dvc.config import Config

    return dict(Config())


def _own_settings(config: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """What a machine's configuration says of a remote, with secrets."""
    from dvc.fs import get_fs_config

    if place.remote.lower() not in config.get("remote", {}):
        return {}
    try:
        return dict(get_fs_config(config, name=place.remote))
    except KeyError:  # settings alone, without an address
        return dict(config["remote"][place.remote.lower()])
