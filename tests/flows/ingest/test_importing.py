"""`graft import` and `graft sample`: what is taken, what is refused, and that the source is only read."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from projects import Project, draw, draw_classes

from graft.flows.ingest import importing, raw_folder
from graft.flows.ingest.importing import import_images, import_sample
from graft.flows.ingest.planned import Plan
from graft.flows.versioning.dvc import raw_hash, raw_listing
from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.preprocess.scan import scan

ROOT = Path(__file__).resolve().parents[3]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, mode and time of change of every file."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime_ns) for file in files}


def test_folders_of_classes_are_copied_and_put_under_dvc(empty_project: Project, classes: Path) -> None:
    before = snapshot(classes)

    summary = import_images(classes, empty_project.root)

    assert summary["form"] == "classes"
    assert summary["classes"] == {"blue": 2, "green": 2, "red": 2}
    assert summary["dvc"] == raw_hash(empty_project.root) != ""
    assert snapshot(classes) == before
    assert len(scan(empty_project.root / "data" / "raw")) == 6


def test_hidden_files_are_left_out_and_counted(empty_project: Project, classes: Path) -> None:
    (classes / ".DS_Store").write_bytes(b"x")
    (classes / "red" / "Thumbs.db").write_bytes(b"x")
    (classes / "$RECYCLE.BIN").mkdir()
    (classes / "$RECYCLE.BIN" / "deleted.png").write_bytes(b"x")

    told = import_images(classes, empty_project.root)

    assert told["left_out"]["hidden file, or left by a system"]["files"] == 3
    assert set(told["classes"]) == {"blue", "green", "red"}


@pytest.mark.parametrize(
    "names", [("train", "val"), ("train", "test"), ("train", "val", "test"), ("Training", "valid")]
)
def test_split_folders_are_taken_as_they_are(empty_project: Project, tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        draw_classes(tmp_path / "source" / name, each=2)

    assert import_images(tmp_path / "source", empty_project.root)["form"] == "splits"
    assert set(scan(empty_project.root / "data" / "raw")["split"]) >= {"train", "test"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_brings_its_images_and_columns(empty_project: Project, table: Path, kind: str) -> None:
    if kind == "parquet":
        pd.read_csv(table).to_parquet(table.with_suffix(".parquet"))
    summary = import_images(table.with_suffix(f".{kind}"), empty_project.root)

    assert summary["form"] == "table"
    found = scan(empty_project.root / "data" / "raw")
    found = found[found["label"].notna()]
    assert list(found["label"]) == ["a", "b", "a", "b"]
    assert list(found["group"]) == ["x", "y", "x", "y"]


def test_tables_can_be_added_one_after_another(empty_project: Project, table: Path) -> None:
    import_images(table, empty_project.root)
    for extra in ("first", "second"):
        folder = table.parent / extra
        draw(folder / f"{extra}.png", 2, 7)
        pd.DataFrame({"path": [f"{extra}.png"], "label": ["c"]}).to_csv(folder / "list.csv", index=False)
        import_images(folder / "list.csv", empty_project.root, "add")

    found = scan(empty_project.root / "data" / "raw")
    assert sorted(found["label"].dropna()) == ["a", "a", "b", "b", "c", "c"]


def test_images_are_not_overwritten_unasked(empty_project: Project, classes: Path) -> None:
    import_images(classes, empty_project.root)
    before = snapshot(empty_project.root / "data" / "raw")

    with pytest.raises(DataError, match=r"already holds images[\s\S]*--replace"):
        import_images(classes, empty_project.root)

    assert snapshot(empty_project.root / "data" / "raw") == before


def test_add_keeps_what_is_there_and_replace_does_not(empty_project: Project, classes: Path, tmp_path: Path) -> None:
    import_images(classes, empty_project.root)
    draw(tmp_path / "more" / "red" / "another.png", 0, 77)
    raw = empty_project.root / "data" / "raw"

    import_images(tmp_path / "more", empty_project.root, "add")
    assert len(scan(raw)) == 7

    import_images(tmp_path / "more", empty_project.root, "replace")
    assert list(scan(raw)["path"]) == ["red/another.png"]


def test_replace_refuses_to_delete_untracked_files(empty_project: Project, classes: Path, tmp_path: Path) -> None:
    import_images(classes, empty_project.root)
    raw = empty_project.root / "data" / "raw"
    draw(raw / "red" / "unsaved.png", 0, 5)
    draw(raw / "red" / "000.png", 0, 6)

    with pytest.raises(DataError, match=r"2 files: red/000.png, red/unsaved.png[\s\S]*--force"):
        import_images(classes, empty_project.root, "replace")

    import_images(classes, empty_project.root, "replace", force=True)
    assert not (raw / "red" / "unsaved.png").exists()


def test_images_that_dvc_does_not_take_leave_the_earlier_ones(empty_project: Project, classes: Path) -> None:
    import_images(classes, empty_project.root)
    raw = empty_project.root / "data" / "raw"
    before = snapshot(raw)
    cache = empty_project.root / ".dvc" / "cache"
    shutil.rmtree(cache)
    cache.write_text("no folder", encoding="utf-8")
    draw_classes(classes, each=3)

    with pytest.raises(GraftError, match="DVC failed"):
        import_images(classes, empty_project.root, "replace", force=True)

    assert snapshot(raw) == before
    assert not list(raw.parent.glob(".*.part"))


def test_add_refuses_another_image_of_the_same_name(empty_project: Project, classes: Path, tmp_path: Path) -> None:
    import_images(classes, empty_project.root)
    draw(tmp_path / "more" / "red" / "000.png", 0, 500)

    with pytest.raises(DataError, match="another image of this name"):
        import_images(tmp_path / "more", empty_project.root, "add")


def test_links_share_the_file_and_are_refused_where_dvc_would_lock_it(empty_project: Project, classes: Path) -> None:
    before = snapshot(classes)
    import_images(classes, empty_project.root, link=True)
    assert snapshot(classes) == before

    empty_project.dvc("config", "cache.type", "hardlink")
    with pytest.raises(DataError, match="read-only"):
        import_images(classes, empty_project.root, "replace", link=True)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.mkdir(), "no folders of images"),
        (lambda folder: draw(folder / "loose.png", 0, 0), "no folders of images"),
        (lambda folder: draw_classes(folder / "train", 1), "split of its own, but only one"),
        (lambda folder: [draw_classes(folder / name, 1) for name in ("val", "test")], "split of their own"),
        (lambda folder: [draw_classes(folder / name, 1) for name in ("train", "cats")], "mixes split folders"),
        (lambda folder: [draw(folder / name / "x.png", 0, 0) for name in ("train", "val")], "without a class"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_anything_is_touched(
    empty_project: Project, tmp_path: Path, make, expected: str
) -> None:
    make(tmp_path / "source")

    with pytest.raises(DataError, match=expected):
        import_images(tmp_path / "source", empty_project.root)

    assert not (empty_project.root / "data" / "raw").exists()


def test_the_projects_own_images_are_not_imported_into_themselves(empty_project: Project, classes: Path) -> None:
    import_images(classes, empty_project.root)

    with pytest.raises(GraftError, match="own data/raw"):
        import_images(empty_project.root / "data" / "raw" / "red", empty_project.root, "replace")


def test_the_sample_is_two_thousand_images_of_ten_classes(empty_project: Project) -> None:
    summary = import_sample(empty_project.root)

    assert (summary["files"], set(summary["classes"].values())) == (2000, {200})
    assert len(summary["classes"]) == 10
    assert (ROOT / "sample" / "fashion-mnist-2000.zip").stat().st_size < 2_000_000


def test_links_that_lead_out_are_refused_unless_allowed(empty_project: Project, classes: Path, secret: Path) -> None:
    (classes / "red" / "etc").symlink_to("/etc")
    (classes / "red" / "secret.png").symlink_to(secret)

    with pytest.raises(DataError, match=r"2: red/etc \(a link that leads out[\s\S]*--allow-outside"):
        import_images(classes, empty_project.root)
    assert not (empty_project.root / "data" / "raw").exists()

    (classes / "red" / "etc").unlink()
    summary = import_images(classes, empty_project.root, outside=True)
    taken = empty_project.root / "data" / "raw" / "red" / "secret.png"
    assert summary["files"] == 7
    assert not taken.is_symlink()
    assert taken.read_bytes() == secret.read_bytes()


def test_links_within_the_folder_are_taken_once_and_counted(empty_project: Project, classes: Path) -> None:
    (classes / "red" / "round").symlink_to("..")
    (classes / "green" / "again.png").symlink_to("000.png")

    summary = import_images(classes, empty_project.root)

    told = {"link to a file that is taken anyway": {"files": 2, "such_as": ["green/again.png", "red/round"]}}
    assert (summary["files"], summary["left_out"]) == (6, told)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: os.mkfifo(folder / "x.png"), r"red/x\.png \(a FIFO"),
        (lambda folder: (folder / "x.png").symlink_to("gone.png"), r"red/x\.png \(a broken link"),
        (lambda folder: (folder / os.fsdecode(b"\xe9.png")).touch(), r"red/\\xe9\.png \(its name is not UTF-8"),
    ],
    ids=["FIFO", "broken link", "not UTF-8"],
)
def test_what_cannot_be_an_image_is_refused_by_name_before_anything_is_copied(
    empty_project: Project, classes: Path, make, expected: str
) -> None:
    make(classes / "red")

    with pytest.raises(DataError, match=expected):
        import_images(classes, empty_project.root)

    assert not (empty_project.root / "data" / "raw").exists()


def test_images_of_a_folder_that_cannot_be_read_do_not_vanish(
    empty_project: Project, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:  # root reads whatever the permissions are
        if str(path) == str(classes / "red"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"red \(the folder cannot be read: Permission denied\)"):
        import_images(classes, empty_project.root)


def test_the_command_takes_files_from_elsewhere_only_if_asked(
    empty_project: Project, table: Path, secret: Path
) -> None:
    table.write_text("path,label\npictures/0.png,a\n../elsewhere/secret.png,b\n", encoding="utf-8")

    done = empty_project.graft_here("import", str(table), check=False)
    assert (done.returncode, "row 2" in done.stderr) == (2, True)
    empty_project.graft_here("import", str(table), "--allow-outside")
    assert len(scan(empty_project.root / "data" / "raw")) == 2


def test_files_and_classes_may_have_any_name(empty_project: Project, classes: Path) -> None:
    names = ["a\tb/1.png", "a\nb/\u202e1.png", "\"a\" 'b'/-1.png", f"{'x' * 255}/{'y' * 251}.png"]
    for number, name in enumerate(names):
        draw(classes / name, 0, 50 + number)

    told = import_images(classes, empty_project.root)

    assert {name.partition("/")[0] for name in names} < {*told["classes"]}  # type: ignore[misc]
    assert {*names} < {*raw_listing(empty_project.root)}


def test_a_table_without_rows_replaces_nothing(empty_project: Project, table: Path) -> None:
    import_images(table, empty_project.root)
    before = snapshot(empty_project.root / "data" / "raw")
    table.write_text("path,label\n", encoding="utf-8")

    with pytest.raises(DataError, match="has no images to import"):
        import_images(table, empty_project.root, "replace")

    assert snapshot(empty_project.root / "data" / "raw") == before


def test_images_for_one_split_join_those_of_all(empty_project: Project, tmp_path: Path) -> None:
    for name in ("train", "test"):
        draw_classes(tmp_path / "source" / name, each=2)
    import_images(tmp_path / "source", empty_project.root)
    draw(tmp_path / "more" / "train" / "red" / "new.png", 0, 77)

    assert import_images(tmp_path / "more", empty_project.root, "add")["files"] == 1
    assert len(scan(empty_project.root / "data" / "raw")) == 13


def test_data_raw_as_a_link_is_refused_and_what_it_leads_to_stays(
    empty_project: Project, classes: Path, tmp_path: Path
) -> None:
    disk = draw_classes(tmp_path / "disk", each=1)
    before = snapshot(disk)
    raw = empty_project.root / "data" / "raw"
    raw.symlink_to(disk)

    for how in ("new", "add", "replace"):
        with pytest.raises(DataError, match=r"is a link[\s\S]*it leads to .*disk[\s\S]*cache\.type symlink"):
            import_images(classes, empty_project.root, how, force=True)

    assert raw.is_symlink()
    assert snapshot(disk) == before
    assert not list(raw.parent.glob(".*.part"))


def test_images_that_dvc_links_to_its_cache_are_kept_when_others_join(
    empty_project: Project, classes: Path, tmp_path: Path
) -> None:
    empty_project.dvc("config", "cache.type", "symlink")
    draw(classes / "red" / "copy.png", 0, 0)  # the same bytes as another: one file in DVC's cache
    import_images(classes, empty_project.root)
    raw = empty_project.root / "data" / "raw"
    assert (raw / "red" / "000.png").is_symlink()
    draw(tmp_path / "more" / "red" / "new.png", 0, 77)

    import_images(tmp_path / "more", empty_project.root, "add")

    assert len(scan(raw)) == 8


@pytest.mark.parametrize("how", ["new", "add", "replace"])
def test_a_full_disk_is_one_error_and_leaves_everything_as_before(
    empty_project: Project, classes: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = empty_project.root / "data" / "raw"
    if how != "new":
        import_images(classes, empty_project.root)
    before = snapshot(raw)
    draw(tmp_path / "more" / "red" / "new.png", 0, 77)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(importing, "opened", full)
    with pytest.raises(GraftError, match=r"unchanged[\s\S]*No space left on device"):
        import_images(tmp_path / "more", empty_project.root, how)

    assert snapshot(raw) == before
    assert raw.exists() == (how != "new")
    assert not list(raw.parent.glob(".*.part"))


def test_a_first_import_that_dvc_does_not_take_leaves_nothing(empty_project: Project, classes: Path) -> None:
    cache = empty_project.root / ".dvc" / "cache"
    cache.write_text("no folder", encoding="utf-8")
    with pytest.raises(GraftError, match="DVC failed"):
        import_images(classes, empty_project.root)
    assert not (empty_project.root / "data" / "raw").exists()

    cache.unlink()
    assert import_images(classes, empty_project.root)["files"] == 6


def test_a_damaged_configuration_of_dvc_is_named_before_anything_is_copied(
    empty_project: Project, classes: Path
) -> None:
    (empty_project.root / ".dvc" / "config").write_text("[nonsense", encoding="utf-8")

    with pytest.raises(GraftError, match=r"\.dvc/config .*is not a configuration of DVC's"):
        import_images(classes, empty_project.root)
    assert not (empty_project.root / "data" / "raw").exists()


def test_what_a_killed_import_had_set_aside_is_cleared_away(empty_project: Project, classes: Path) -> None:
    import_images(classes, empty_project.root)
    draw(empty_project.root / "data" / ".raw.before.part" / "red" / "old.png", 0, 9)

    with pytest.raises(DataError, match="already holds images"):
        import_images(classes, empty_project.root)

    assert not list((empty_project.root / "data").glob(".*.part"))


def test_of_two_imports_one_waits_for_the_other_and_says_so(empty_project: Project, classes: Path) -> None:
    (empty_project.root / ".graft").mkdir(exist_ok=True)
    with FileLock(empty_project.root / ".graft" / "import.lock"):
        program = "import sys; from graft.flows.cli.main import main; sys.argv = ['graft', *sys.argv[1:]]; main()"
        waiting = subprocess.Popen(
            [sys.executable, "-c", program, "import", str(classes)],
            cwd=empty_project.root,
            env=empty_project.environment(MLFLOW_TRACKING_URI="http://127.0.0.1:9"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "waiting for another import, at most 10 minutes\n"
        assert not (empty_project.root / "data" / "raw").exists()
    assert waiting.wait(timeout=120) == 0
    assert len(scan(empty_project.root / "data" / "raw")) == 6


def test_dvc_does_not_get_the_images_while_an_import_changes_them(
    empty_project: Project, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    fill, add = importing._fill, importing.dvc.dvc_add

    def in_use() -> None:
        record = json.loads((empty_project.root / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
        used.append(" ".join(record.get("write", {})))

    def filling(*values: Any) -> Plan:
        in_use()
        return fill(*values)

    def adding(root: Path, path: str) -> None:
        in_use()
        add(root, path)

    monkeypatch.setattr(importing, "_fill", filling)
    monkeypatch.setattr(importing.dvc, "dvc_add", adding)

    import_images(classes, empty_project.root)

    assert used == [str(empty_project.root / "data" / "raw"), ""], "`dvc add` must have them"


def test_an_import_does_not_wait_for_ever(
    empty_project: Project, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_folder, "PATIENCE", 0.1)
    (empty_project.root / ".graft").mkdir(exist_ok=True)
    with (
        FileLock(empty_project.root / ".graft" / "import.lock"),
        pytest.raises(GraftError, match="another import is still at work"),
    ):
        import_images(classes, empty_project.root)


TABLES = {
    "multilabel": "path,label\npictures/0.png,b|a\npictures/1.png,\n",
    "multilabel by columns": "path,label:a,label:b\npictures/0.png,1,1\npictures/1.png,0,0\n",
    "regression": "path,target\npictures/0.png,2.50\npictures/1.png,-3\n",
}


@pytest.mark.parametrize(
    ("kind", "expected", "labels"),
    [
        ("multilabel", {"classes": {"a": 1, "b": 1}}, ["a|b", ""]),
        ("multilabel by columns", {"classes": {"a": 1, "b": 1}}, ["a|b", ""]),
        ("regression", {"least": -3.0, "most": 2.5}, ["2.5", "-3.0"]),
    ],
)
def test_several_classes_and_numbers_are_imported_if_the_project_says_so(
    empty_project: Project, table: Path, kind: str, expected: dict[str, object], labels: list[str]
) -> None:
    table.write_text(TABLES[kind], encoding="utf-8")
    task = kind.partition(" ")[0]
    empty_project.set("head", task=task)

    assert import_images(table, empty_project.root).items() >= expected.items()
    found = scan(empty_project.root / "data" / "raw", task).set_index("path")["label"]
    assert list(found[["images/pictures/0.png", "images/pictures/1.png"]]) == labels


def test_a_class_that_a_later_table_brings_is_added(empty_project: Project, table: Path) -> None:
    empty_project.set("head", task="multilabel")
    for rows in ("path,label\npictures/0.png,a\n", "path,label:c\npictures/1.png,1\npictures/2.png,0\n"):
        table.write_text(rows, encoding="utf-8")
        import_images(table, empty_project.root, "add")

    found = scan(empty_project.root / "data" / "raw", "multilabel")
    assert list(found["label"].dropna()) == ["a", "c", ""]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_folders_of_classes_are_refused_where_labels_need_a_table(
    empty_project: Project, classes: Path, task: str
) -> None:
    empty_project.set("head", task=task)

    with pytest.raises(DataError, match=rf"`head.task: {task}` needs"):
        import_images(classes, empty_project.root)

    assert not (empty_project.root / "data" / "raw").exists()
