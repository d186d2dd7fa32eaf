"""DVC: a project's hashes, its cache, and DVC's own commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.tasks.addresses import redacted
from graft.tasks.code import FILE, code_of, tree_hash
from graft.tasks.common.core.errors import DataError, GraftError, TransientError
from graft.tasks.common.core.files import md5
from graft.tasks.common.core.progress import say
from graft.tasks.common.core.yaml_files import read_mapping
from graft.tasks.dvc_process import dvc_error, wait_for_dvc
from graft.tasks.environment import own_python_first

from .dvc_config import cache_folder
from .entries import refuse_what_dvc_cannot_hash
from .git import try_git
from .image_listings import images_in, images_now

HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
"""A hash of DVC's. One from MLflow may be no hash, but a path that leads out of the cache."""

DVC_FAILED = 255
"""DVC's exit code for every error, another command at work in the project among them."""


def shared_state(root: Path) -> Path:
    """The folder for files that all worktrees of the repository share and nobody commits; .graft without git."""
    done = try_git(root, "rev-parse", "--git-common-dir")
    return root / done.stdout.strip() / "graft" if done.returncode == 0 else root / ".graft"


def dvc_command(*words: str) -> list[str]:
    """A command of the DVC in this environment, whatever PATH says and whatever modules the project has (`-P`)."""
    return [sys.executable, "-P", "-m", "dvc", *words]


def dvc(root: Path, words: Sequence[str], doing: str) -> str:
    """Runs DVC to its end, after any other DVC command of the project, and returns what it printed.

    Raises:
        GraftError: it failed; with DVC's reason.
    """
    done = _run(root, words, capture_output=True)
    if done.returncode:
        raise GraftError(
            f"DVC failed while {doing}",
            got=dvc_error((done.stderr.strip() or done.stdout).splitlines()),
            todo=f"run `dvc {' '.join(words)} -v` in {root} to see more",
        )
    return done.stdout


def _run(root: Path, words: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
    """Runs DVC as soon as no other DVC command is at work in the project; again if one began at the same moment."""
    wait_for_dvc(root, say)
    command = dvc_command("--wait-for-lock", *words)
    while True:
        done = subprocess.run(command, cwd=root, env=own_python_first(), text=True, **how)
        if done.returncode != DVC_FAILED or not wait_for_dvc(root, say):
            return done


def repro(root: Path, words: Sequence[str]) -> int:
    """`dvc repro` with its output on the terminal; returns its exit code."""
    return _run(root, ["repro", *words]).returncode


def dvc_add(root: Path, path: str) -> None:
    """`dvc add`; on a terminal with DVC's own progress, since it may copy for hours.

    Raises:
        GraftError: it failed.
    """
    doing = f"putting {path} under version control"
    if not sys.stderr.isatty():
        dvc(root, ["add", path], doing)
        return
    if _run(root, ["add", path], stdout=subprocess.DEVNULL).returncode:
        raise GraftError(f"DVC failed while {doing}", got="see above", todo=f"run `dvc add {path} -v` in {root}")


def repro_preprocess(root: Path) -> None:
    """`dvc repro preprocess`, which does nothing if nothing has changed; what it prints goes to standard error.

    Raises:
        GraftError: it failed.
    """
    if _run(root, ["repro", "--quiet", "preprocess"], stdout=sys.stderr.fileno()).returncode:
        raise GraftError(
            "`dvc repro preprocess`, which lists the images, failed",
            got="see above",
            todo="fix what it names, then try again",
        )


def raw_hash(root: Path, tracked: str = "data/raw.dvc") -> str:
    """DVC's hash of data/raw (`<md5>.dir`); empty if it is not tracked."""
    outs = tracked_file(root / tracked).get("outs") or [{}]
    return str(outs[0].get("md5", ""))


def tracked_file(file: Path) -> dict[str, Any]:
    """The content of a .dvc file; empty if there is none.

    Raises:
        GraftError: it cannot be read.
    """
    return read_mapping(file) if file.is_file() else {}


def raw_hashes(root: Path) -> dict[str, str]:
    """Path below data/raw -> md5 of the image as it is now, for all files that DVC has hashed and all images in shards.

    DVC remembers a file's hash with its inode, time and size; a file that has changed since is hashed again, to be
    compared with data/raw.dvc.

    Raises:
        DataError: data/raw.dvc describes other files, so no record could say which images were used.
    """
    if not (root / ".dvc").is_dir():
        return {}
    from dvc.fs import LocalFileSystem
    from dvc.repo import Repo

    from graft.tasks.preprocess.walk import files_on_disk

    raw = root / "data" / "raw"
    files = {str(raw / name): name for name in files_on_disk(raw)}
    with Repo(str(root)) as repo:
        found = repo.state.get_many(list(files), LocalFileSystem(), {})
        known = {files[path]: str(info.value) for path, _, info in found if info is not None and info.name == "md5"}
        ignored = repo.dvcignore.is_ignored_file
        there = [name for path, name in files.items() if not ignored(path)]
    listed = raw_files(root)
    known |= _hashed_now(raw, [name for name in there if name in listed and name not in known])
    _refuse_other_files(listed, there, known)
    return images_now(raw, known)


def _hashed_now(raw: Path, names: Sequence[str]) -> dict[str, str]:
    """The md5s of those files that can be read."""
    found = {}
    for name in names:
        with suppress(OSError):
            found[name] = md5(raw / name)
    return found


def _refuse_other_files(listed: dict[str, str], there: list[str], known: dict[str, str]) -> None:
    if not listed:
        return
    new = [name for name in there if name not in listed]
    gone = sorted({*listed}.difference(there))
    changed = [name for name, digest in listed.items() if known.get(name, digest) != digest]
    if new or gone or changed:
        raise DataError(
            "data/raw is not what data/raw.dvc says",
            got=f"{len(new)} files added, {len(gone)} missing, {len(changed)} changed: {(new + gone + changed)[0]}",
            todo="run `dvc add data/raw`, or `dvc repro` for the whole pipeline, which does so",
        )


def raw_files(root: Path) -> dict[str, str]:
    """Path below data/raw -> md5 of the file, for the hash in data/raw.dvc, as DVC lists them: shards, and not their
    images. Empty if DVC's cache does not have the listing."""
    return listing_of(root, raw_hash(root)) or {}


def raw_listing(root: Path) -> dict[str, str]:
    """The same with the images of the shards, and not these."""
    return images_of(root, raw_hash(root)) or {}


def images_of(root: Path, digest: str) -> dict[str, str] | None:
    """`listing_of` for a state of data/raw, with the images of the shards, and not these; None if DVC's cache does not
    have the listing or an index.

    Raises:
        DataError: an index is damaged.
    """
    listing = listing_of(root, digest)
    return None if listing is None else images_in(root, listing)


@dataclass(frozen=True)
class StageFiles:
    """One stage's dependencies and outputs, as dvc.yaml names them."""

    deps: list[str]
    outs: list[str]


def stage_files(root: Path, stage: str) -> StageFiles:
    entry = stages_of(root / "dvc.yaml")[stage]
    return StageFiles(names_of(entry.get("deps", [])), names_of(entry.get("outs", [])))


def stages_of(file: Path) -> dict[str, dict[str, Any]]:
    """Stage -> its entry in a dvc.yaml or dvc.lock; none if the file does not exist.

    Raises:
        GraftError: it cannot be read.
    """
    if not file.is_file():
        return {}
    stages = read_mapping(file).get("stages") or {}
    if not isinstance(stages, dict) or not all(isinstance(entry, dict) for entry in stages.values()):
        raise GraftError(
            f"{file} is not a file of DVC's",
            got="`stages` without one entry for each stage",
            todo=f"restore it: `git checkout HEAD -- {file.name}`",
        )
    return stages


def names_of(entries: Iterable[Any]) -> list[str]:
    """The paths in a list of dvc.yaml, in which an entry may have settings."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def dep_hashes(root: Path, stage: str) -> dict[str, str]:
    """Dependency, or code that the stage runs -> hash. Outputs of other stages come from dvc.lock, which is up to date
    for them by now."""
    known = {"data/raw": raw_hash(root), **locked_outs(root)}
    deps = (dep for dep in stage_files(root, stage).deps if (root / dep).exists())
    return {**{dep: known.get(dep) or tree_hash(root / dep) for dep in deps}, **code_of(stage)}


def locked_code(stage: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Folder, or file, of code -> its hash when the stage last ran, by its entry in dvc.lock."""
    return dict(entry.get("params", {}).get(FILE, {}).get(stage) or {})


def locked_outs(root: Path) -> dict[str, str]:
    """Output -> hash, as dvc.lock says."""
    outs = [out for stage in stages_of(root / "dvc.lock").values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def locked_raw(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """The hash of data/raw with which preprocess last ran, by the stages of a dvc.lock; empty if it has not."""
    deps = stages.get("preprocess", {}).get("deps", [])
    return next((str(dep.get("md5", "")) for dep in deps if dep["path"] == "data/raw"), "")


def cached_files(root: Path, digest: str) -> dict[str, Path]:
    """Path -> file in DVC's cache, of a folder with this hash (`<md5>.dir`).

    Raises:
        FileNotFoundError: the listing or a file is not in the cache.
    """
    listing = listing_of(root, digest)
    if listing is None:
        raise FileNotFoundError(digest)
    objects = cache_folder(root) / "files" / "md5"
    files = {path: objects / md5[:2] / md5[2:] for path, md5 in listing.items()}
    missing = next((file for file in files.values() if not file.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(missing)
    return files


def bring_back(root: Path, digest: str, what: str) -> dict[str, Path]:
    """`cached_files`, fetched from the DVC remote if they are not in the cache.

    Args:
        what: a name for it, for the error.

    Raises:
        GraftError: neither the cache nor a remote has it.
    """
    try:
        return cached_files(root, digest)
    except FileNotFoundError:
        fetch_object(root, digest, what)
    try:
        return cached_files(root, digest)
    except FileNotFoundError as error:
        raise _not_there(digest, what, "the remote has only part of it") from error


def fetch_object(root: Path, digest: str, what: str) -> None:
    """Copies the content of a hash from the remote to the cache; for a folder all its files.

    Raises:
        TransientError: the remote does not answer, or there is none.
        GraftError: the remote does not have it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    if not HASH.fullmatch(digest):
        raise _not_there(digest, what, "not a hash of DVC's")
    try:
        with Repo(str(root)) as repo:
            failed = repo.cloud.pull([HashInfo("md5", digest)]).failed
    except (DvcException, OSError) as error:
        reason = redacted((str(error).splitlines() or [type(error).__name__])[0])
        raise _not_there(digest, what, reason, TransientError) from error
    if failed:
        raise _not_there(digest, what, "the remote does not have it")


def _not_there(digest: str, what: str, reason: str, kind: type[GraftError] = GraftError) -> GraftError:
    return kind(
        f"{what} are neither in DVC's cache nor available from a remote",
        got=f"{digest}: {reason}",
        todo="make the remote reachable (`dvc remote list`), or `dvc push` from where they are",
    )


def is_cached(root: Path, digest: str) -> bool:
    """Whether DVC's cache has the content of this hash; for a folder its listing."""
    return cached_file(root, digest) is not None


def cached_file(root: Path, digest: str) -> Path | None:
    """The file in DVC's cache with the content of this hash, or a folder's listing; None if the cache lacks it."""
    file = cache_folder(root) / "files" / "md5" / digest[:2] / digest[2:]
    return file if HASH.fullmatch(digest) and file.is_file() else None


def listing_of(root: Path, digest: str) -> dict[str, str] | None:
    """Path -> md5 of the files in a folder, by its hash; None if DVC's cache does not have its listing."""
    file = cached_file(root, digest)
    if file is None or not digest.endswith(".dir"):
        return None
    listing = {entry["relpath"]: entry["md5"] for entry in json.loads(file.read_bytes())}
    return listing if all(map(HASH.fullmatch, listing.values())) else None


def files_now(root: Path, places: Iterable[str]) -> dict[str, dict[str, str]]:
    """Each place (a file or a folder of the project) -> path below it -> current md5, or empty if DVC does not know it:
    DVC remembers the hash of a file by inode, time and size.

    A file's own path below itself is empty. Places that do not exist and files that DVC ignores are left out.

    Raises:
        DataError: a name is not UTF-8, so DVC cannot look it up.
    """
    from dvc.fs import LocalFileSystem
    from dvc.repo import Repo

    fs, top = LocalFileSystem(), str(root.resolve())
    with Repo(top) as repo:
        found: dict[str, dict[str, str]] = {}
        for place in dict.fromkeys(places):
            path = f"{top}/{place}"
            if os.path.isdir(path):  # noqa: PTH112
                found[place] = {file: file[len(path) + 1 :] for file in repo.dvcignore.find(fs, path)}
            elif os.path.isfile(path):  # noqa: PTH113
                found[place] = {path: ""}
        seen = {file: _seen(file) for files in found.values() for file in files}
        every = {file: info for file, info in seen.items() if info}
        kept = repo.state.get_many(list(every), fs, every)
        with _names_told(root, found):
            known = {file: str(info.value) for file, _, info in kept if info and info.name == "md5"}
    return {
        place: {below: known.get(file, "") for file, below in files.items() if file in every}
        for place, files in found.items()
    }


@contextmanager
def _names_told(root: Path, places: Iterable[str]) -> Iterator[None]:
    """DVC's database takes names in UTF-8 only."""
    try:
        yield
    except UnicodeEncodeError:
        for place in places:
            refuse_what_dvc_cannot_hash(root / place)
        raise


def _seen(file: str) -> dict[str, Any]:
    """The facts by which DVC knows a file; empty for a broken link. DVC's own function takes three times as long."""
    try:
        found = os.stat(file)  # noqa: PTH116
    except FileNotFoundError:
        return {}
    return {"type": "file", "ino": found.st_ino, "mtime": found.st_mtime, "size": found.st_size}
