"""Restores the outputs that DVC removes before it runs a stage, for a stage that refuses to start."""

from __future__ import annotations

import shutil
from pathlib import Path

from graft.tasks.common.core.files import md5, whole_file, whole_folder

from . import dvc
from .git import try_git


def restore_outs(root: Path, stage: str) -> tuple[list[str], list[str]]:
    """Restores the missing outputs of a stage as dvc.lock names them: from DVC's cache, or from git's last commit.

    Returns:
        The outputs that were restored, and those that neither has.
    """
    outs = dvc.stages_of(root / "dvc.lock").get(stage, {}).get("outs", [])
    gone = [out for out in outs if not (root / out["path"]).exists()]
    restored = {out["path"]: _restore(root, out["path"], str(out.get("md5", ""))) for out in gone}
    return [path for path, done in restored.items() if done], [path for path, done in restored.items() if not done]


def _restore(root: Path, path: str, digest: str) -> bool:
    if digest.endswith(".dir"):
        return _restore_folder(root, root / path, digest)
    cached = dvc.cached_file(root, digest)
    if cached is not None:
        with whole_file(root / path) as part:
            shutil.copyfile(cached, part)
        return True
    return _restore_committed(root, path, digest)


def _restore_folder(root: Path, target: Path, digest: str) -> bool:
    try:
        files = dvc.cached_files(root, digest)
    except FileNotFoundError:
        return False
    with whole_folder(target) as folder:
        for name, file in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
    return True


def _restore_committed(root: Path, path: str, digest: str) -> bool:
    """Metrics are in git instead of DVC's cache; only the content that dvc.lock names will do."""
    done = try_git(root, "show", f"HEAD:./{path}")
    if done.returncode:
        return False
    with whole_file(root / path) as part:
        part.write_text(done.stdout, encoding="utf-8")
    if md5(root / path) == digest:
        return True
    (root / path).unlink()
    return False
