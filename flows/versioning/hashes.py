"""The hashes that DVC gives files and folders, of the working tree and of any commit."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from graft.tasks.code import hash_of_listing

from .git import git


def tree_hashes(root: Path, commit: str, paths: Iterable[str]) -> dict[str, str]:
    """Path -> the hash that DVC would give the file or folder at a commit; empty if it did not exist."""
    here = git(root, "rev-parse", "--show-prefix", doing="looking for the project in its repository")
    names = git(root, "ls-tree", "-r", "-z", "--full-tree", "--name-only", commit, doing=f"listing {commit}")
    wanted = list(paths)
    files = [name.removeprefix(here) for name in names.split("\0") if name.startswith(here)]
    files = [name for name in files if any(name == path or name.startswith(f"{path}/") for path in wanted)]
    digests = dict(zip(files, _md5s_at(root, [f"{commit}:{here}{name}" for name in files]), strict=True))
    return {path: digests.get(path) or _folder_hash(path, digests) for path in wanted}


def _folder_hash(folder: str, digests: Mapping[str, str]) -> str:
    """The hash of a folder, from the md5s of all files; empty if it holds none of them."""
    listing = {name.removeprefix(f"{folder}/"): md5 for name, md5 in digests.items() if name.startswith(f"{folder}/")}
    return hash_of_listing(listing) if listing else ""


def _md5s_at(root: Path, objects: Sequence[str]) -> Iterator[str]:
    """The md5 of each of git's objects."""
    done = subprocess.run(
        ["git", "-C", str(root), "cat-file", "--batch"],
        input="".join(f"{name}\n" for name in objects).encode(),
        capture_output=True,
        check=True,
    )
    rest = done.stdout
    for _ in objects:
        head, _, rest = rest.partition(b"\n")
        size = int(head.split()[-1])
        yield hashlib.md5(rest[:size], usedforsecurity=False).hexdigest()
        rest = rest[size + 1 :]
