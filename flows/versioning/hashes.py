"""The hashes that DVC gives files and folders, of the working tree and of any commit."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks.common.core.files import md5

from .git import git


def tree_hash(path: Path) -> str:
    """The hash that DVC gives a file, or a folder (`<md5>.dir`): of its listing, sorted by path."""
    if path.is_file():
        return md5(path)
    files = sorted(
        file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    )
    listing = sorted(
        ({"md5": md5(file), "relpath": file.relative_to(path).as_posix()} for file in files), key=lambda e: e["relpath"]
    )
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def tree_hashes(root: Path, commit: str, paths: Iterable[str]) -> dict[str, str]:
    """Path -> the hash that DVC would give the file or folder at a commit; empty if it was not there."""
    here = git(root, "rev-parse", "--show-prefix", doing="looking for the project in its repository")
    names = git(root, "ls-tree", "-r", "-z", "--full-tree", "--name-only", commit, doing=f"listing {commit}")
    wanted = list(paths)
    files = [name.removeprefix(here) for name in names.split("\0") if name.startswith(here)]
    files = [name for name in files if any(name == path or name.startswith(f"{path}/") for path in wanted)]
    digests = dict(zip(files, _md5s_at(root, [f"{commit}:{here}{name}" for name in files]), strict=True))
    return {path: digests.get(path) or _listing_hash(path, digests) for path in wanted}


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


def _listing_hash(folder: str, digests: dict[str, str]) -> str:
    """DVC's hash of a folder, by the md5s of what is in it."""
    below = f"{folder}/"
    listing = [
        {"md5": md5, "relpath": name.removeprefix(below)} for name, md5 in digests.items() if name.startswith(below)
    ]
    listing.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir" if listing else ""


def hash_of_listing(listing: Mapping[str, str]) -> str:
    """The hash that DVC gives a folder of these files."""
    entries = [{"md5": listing[path], "relpath": path} for path in sorted(listing)]
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
