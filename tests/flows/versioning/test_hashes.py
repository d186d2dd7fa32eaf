"""The hashes that DVC gives files and folders."""

from __future__ import annotations

from pathlib import Path

import yaml
from projects import Project

from graft.tasks.code import hash_of_listing, tree_hash
from graft.tasks.common.core.files import md5


def test_a_folders_hash_is_dvcs(finished: Project) -> None:
    lock = yaml.safe_load((finished.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    for stage in lock.values():
        for entry in [*stage["deps"], *stage["outs"]]:
            assert tree_hash(finished.root / entry["path"]) == entry["md5"]


def test_a_listings_hash_is_that_of_the_folder_in_whatever_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", "a-b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "c.pyc").touch()

    listing = {name: md5(tmp_path / name) for name in ("b.txt", "a/c.txt", "a-b.txt")}

    assert hash_of_listing(listing) == hash_of_listing(dict(reversed(listing.items()))) == tree_hash(tmp_path)
