"""DVC: a project's hashes and listings, and the files that DVC writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from projects import Project, draw, hold, release

from graft.flows.versioning.dvc import (
    bring_back,
    cached_file,
    dvc,
    locked_outs,
    raw_hash,
    raw_hashes,
    raw_listing,
    stage_files,
)
from graft.flows.versioning.dvc_config import dvc_remote
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import md5


def test_the_images_hashes_come_from_dvcs_listing(finished: Project) -> None:
    hashes = raw_hashes(finished.root)

    assert hashes == raw_listing(finished.root)
    assert len(hashes) == 42
    assert hashes["red/000.png"] == md5(finished.root / "data" / "raw" / "red" / "000.png")


def test_the_listing_is_found_in_a_shared_cache(project: Project) -> None:
    (project.root / ".dvc" / "cache").rename(project.root.parent / "shared")
    project.dvc("cache", "dir", str(project.root.parent / "shared"))

    assert len(raw_listing(project.root)) == 42


@pytest.mark.parametrize("digest", ["../../../../secret.dir", "..", "", "-x", "0" * 31, "G" * 32])
def test_what_is_no_hash_leads_to_no_file(project: Project, digest: str) -> None:
    (project.root / "secret.dir").write_text('[{"relpath": "a", "md5": "b"}]', encoding="utf-8")
    assert cached_file(project.root, digest) is None
    with pytest.raises(GraftError, match="not a hash"):
        bring_back(project.root, digest, "the images")


def test_a_listing_that_names_paths_instead_of_hashes_is_refused(project: Project) -> None:
    digest = raw_hash(project.root)
    listing = cached_file(project.root, digest)
    assert listing is not None
    listing.chmod(0o644)
    listing.write_text('[{"relpath": "a", "md5": "../../../../params.yaml"}]', encoding="utf-8")
    with pytest.raises(GraftError, match="neither in DVC's cache"):
        bring_back(project.root, digest, "the images")


def test_a_file_replaced_behind_dvcs_back_is_noticed_even_with_its_old_size_and_time(project: Project) -> None:
    file = project.root / "data" / "raw" / "red" / "000.png"
    before, size = file.stat(), file.stat().st_size
    file.unlink()
    draw(file, 1, 77)
    file.write_bytes(file.read_bytes()[:size].ljust(size, b" "))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    project.dvc("status")

    with pytest.raises(DataError, match=r"1 changed: red/000\.png"):
        raw_hashes(project.root)


def test_graft_repro_waits_for_another_dvc_command(project: Project) -> None:
    other = hold(project.root)
    repro = subprocess.Popen(
        [sys.executable, "-m", "graft.flows.cli.main", "repro", "head"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert repro.stderr is not None
    line = repro.stderr.readline()
    assert repro.poll() is None
    release(other)
    output, _ = repro.communicate()

    assert f"(process {other.pid}), at most 60 minutes" in line
    assert repro.returncode == 0
    assert "Stage 'head' didn't change, skipping" in output


def test_a_failed_dvc_command_gives_dvcs_reason(project: Project) -> None:
    with pytest.raises(GraftError, match=r"got:     [^\n]*nowhere") as failed:
        dvc(project.root, ["pull", "nowhere"], "a test")

    assert "Having any troubles" not in str(failed.value)


def test_files_that_dvc_ignores_are_no_change(project: Project) -> None:
    (project.root / ".dvcignore").write_text("*.txt\n", encoding="utf-8")
    (project.root / "data" / "raw" / "red" / "notes.txt").write_text("x", encoding="utf-8")
    project.dvc("status")

    assert len(raw_hashes(project.root)) == 42


def test_the_stage_preprocess_alone_refuses_images_that_dvc_has_not_seen(project: Project) -> None:
    draw(project.root / "data" / "raw" / "red" / "new.png", 0, 99)
    lock = project.lock()

    done = project.dvc("repro", "-s", "preprocess", check=False)

    assert done.returncode != 0
    assert "data/raw is not what data/raw.dvc says" in done.stderr
    assert "dvc add data/raw" in done.stderr
    assert project.lock() == lock


def test_without_dvc_there_is_no_hash_and_no_listing(empty_project: Project) -> None:
    assert raw_hash(empty_project.root) == ""
    assert raw_listing(empty_project.root) == {}


def test_a_stages_files_are_read_from_dvc_yaml(finished: Project) -> None:
    files = stage_files(finished.root, "head")

    assert "data/features" in files.deps
    assert files.outs == ["models/head", "plots/head", "runs/head.json", "metrics/head.json"]


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"<<<<<<< HEAD\nstages:\n=======\nstages: {}\n>>>>>>> theirs\n", "unresolved merge conflict"),
        (b"\xff\xfe\x00\x01", "not a text file"),
        (b"", "an empty file"),
        (b"stages: [1, 2]\n", "not a file of DVC's"),
    ],
)
def test_a_damaged_lock_is_named_with_its_repair(tmp_path: Path, content: bytes, got: str) -> None:
    (tmp_path / "dvc.lock").write_bytes(content)

    with pytest.raises(GraftError, match=r"dvc\.lock") as caught:
        locked_outs(tmp_path)

    assert got in str(caught.value)
    assert "git checkout" in str(caught.value)


def test_a_damaged_file_of_the_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "raw.dvc").write_text("<<<<<<< HEAD\nouts:\n", encoding="utf-8")

    with pytest.raises(GraftError, match=r"raw\.dvc has an unresolved merge conflict"):
        raw_hash(tmp_path)


def test_without_a_lock_nothing_is_locked(tmp_path: Path) -> None:
    assert locked_outs(tmp_path) == {}


def test_a_damaged_configuration_is_named_with_its_repair(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[my]\nown = true\n", encoding="utf-8")

    with pytest.raises(GraftError, match="not a configuration of DVC's") as damaged:
        dvc_remote(tmp_path)
    assert "git checkout HEAD -- .dvc/config" in damaged.value.todo
