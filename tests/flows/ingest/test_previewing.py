"""`graft import --dry-run`, and archives: nothing but the images is left behind."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from projects import Project, draw, draw_classes

from graft.flows.ingest.importing import import_images, preview_images
from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.scan import scan


@pytest.fixture
def project(empty_project: Project) -> Project:
    return empty_project


def everything(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def test_a_preview_of_a_folder_tells_all_and_writes_nothing(project: Project, classes: Path) -> None:
    draw(classes / "root.png", 0, 5)
    before = everything(project.root)

    told = project.graft_here("import", str(classes), "--dry-run").stdout

    assert everything(project.root) == before
    for part in ("would be imported", "red: 2", "not in a folder of a class: 1 (root.png)", "fewer than 3 images"):
        assert part in " ".join(told.split())


def test_a_preview_as_json_is_what_the_import_tells(project: Project, classes: Path) -> None:
    preview = json.loads(project.graft_here("import", str(classes), "--dry-run", "--json").stdout)
    told = import_images(classes, project.root)

    assert told == {**preview, "dvc": told["dvc"]}


def test_a_preview_of_images_to_add_refuses_what_the_import_would(project: Project, classes: Path) -> None:
    draw_classes(project.root / "data" / "raw", each=1)
    draw(classes / "red" / "000.png", 1, 99)

    with pytest.raises(DataError, match="another image of this name"):
        preview_images(classes, project.root, "add")


def test_a_preview_beside_images_says_what_the_import_needs(project: Project, classes: Path) -> None:
    draw_classes(project.root / "data" / "raw", each=1)
    told = preview_images(classes, project.root)
    assert told["warnings"][0] == "data/raw already holds images: `--add` adds to them, `--replace` replaces them"


def test_a_preview_of_a_replacement_names_the_images_that_it_would_lose(project: Project, classes: Path) -> None:
    import_images(classes, project.root)
    draw(project.root / "data" / "raw" / "red" / "untracked.png", 0, 7)
    before = everything(project.root / "data")

    done = project.graft_here("import", str(classes), "--replace", "--dry-run", check=False)

    assert done.returncode == 2
    assert "1 files: red/untracked.png" in done.stderr
    assert "would be imported" in project.graft_here("import", str(classes), "--replace", "--force", "--dry-run").stdout
    assert everything(project.root / "data") == before


def test_a_preview_refuses_what_cannot_be_imported(project: Project, tmp_path: Path) -> None:
    draw(tmp_path / "flat" / "1.png", 0, 0)
    done = project.graft_here("import", str(tmp_path / "flat"), "--dry-run", check=False)

    assert done.returncode == 2
    assert "no folders of images" in done.stderr
    assert "one folder per class; train/, val/, test/" in done.stderr


@pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("gztar", ".tar.gz")])
def test_an_archive_is_imported_and_nothing_of_it_is_left(
    project: Project, classes: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    shutil.make_archive(str(tmp_path / "pets"), kind, classes.parent, classes.name)

    told = import_images(tmp_path / f"pets{suffix}", project.root)

    assert told["classes"] == {"blue": 2, "green": 2, "red": 2}
    assert told["notes"] == ["source/ is a folder around all others"]
    assert len(scan(project.root / "data" / "raw")) == 6
    assert not (project.root / ".graft" / "tmp" / "import").exists()


def test_a_preview_of_an_archive_leaves_no_images(project: Project, classes: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "pets"), "zip", classes)

    assert preview_images(tmp_path / "pets.zip", project.root)["files"] == 6
    assert not (project.root / "data" / "raw").exists()
    assert not (project.root / ".graft" / "tmp" / "import").exists()


def test_errors_about_an_archive_name_the_archive(project: Project, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        archive.writestr("1.png", b"x")

    with pytest.raises(DataError, match=r"flat\.zip has no folders of images") as refused:
        import_images(tmp_path / "flat.zip", project.root)
    assert ".graft" not in str(refused.value)
    assert not (project.root / "data" / "raw").exists()


def test_what_a_killed_import_had_unpacked_goes_with_the_next(project: Project, classes: Path, tmp_path: Path) -> None:
    draw(project.root / ".graft" / "tmp" / "import" / "old" / "1.png", 0, 0)
    shutil.make_archive(str(tmp_path / "pets"), "zip", classes)

    assert set(preview_images(tmp_path / "pets.zip", project.root)["classes"]) == {"blue", "green", "red"}


def test_new_images_of_a_known_class_with_folders_in_it_join_that_class(
    project: Project, classes: Path, tmp_path: Path
) -> None:
    shutil.copytree(classes, project.root / "data" / "raw")
    draw(tmp_path / "more" / "red" / "dark" / "1.png", 0, 50)
    draw(tmp_path / "more" / "red" / "light" / "1.png", 0, 51)

    assert preview_images(tmp_path / "more", project.root, "add")["classes"] == {"red": 2}


def test_nothing_is_added_to_images_in_a_folder_around_them(project: Project, classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes, project.root / "data" / "raw" / "around")

    with pytest.raises(DataError, match=r"in a folder around them[\s\S]*blue/000\.png[\s\S]*--replace --force"):
        preview_images(classes, project.root, "add")
