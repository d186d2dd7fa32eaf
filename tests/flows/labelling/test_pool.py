import shutil

import pytest
from PIL import Image

from graft.flows.labelling.pool import add_to_pool, read_pool
from graft.flows.serving.server.kept import IMAGES, MARK
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import md5


def test_new_images_are_kept_by_content_under_dvc(project, pictures):
    before = (project.root / "data" / "raw.dvc").read_text()
    added = add_to_pool(project.root, pictures)
    index = read_pool(project.root)
    assert (added.new, added.known, added.refused) == (12, 0, {})
    assert set(index["name"]) == {f"{colour}/{number}.png" for colour in range(3) for number in range(100, 104)}
    assert all(md5(project.root / "data" / "pool" / row.path) == row.image_id for row in index.itertuples())
    assert (project.root / "data" / "pool.dvc").is_file()
    assert (project.root / "data" / "raw.dvc").read_text() == before
    assert "data/pool" not in project.git("status", "--short", "--untracked-files=all").replace("data/pool.dvc", "")


def test_a_second_time_nothing_is_added(pooled, pictures):
    added = add_to_pool(pooled.root, pictures)
    assert (added.new, added.known) == (0, 12)


def test_what_the_data_have_is_left_out_by_bytes_and_by_pixels(project, tmp_path):
    raw = sorted((project.root / "data" / "raw").rglob("*.png"))
    folder = tmp_path / "again"
    folder.mkdir()
    shutil.copyfile(raw[0], folder / "same.png")
    with Image.open(raw[1]) as image:
        image.save(folder / "pixels.bmp")
    added = add_to_pool(project.root, folder)
    assert (added.new, added.known) == (0, 2)


def test_a_file_that_is_no_image_is_named_and_the_others_are_taken(project, pictures):
    (pictures / "0" / "torn.png").write_bytes((pictures / "0" / "100.png").read_bytes()[:200])
    added = add_to_pool(project.root, pictures)
    assert added.new == 12
    assert list(added.refused) == ["0/torn.png"]
    assert added.refused["0/torn.png"].startswith("damaged")


def test_pictures_that_a_server_kept_come_with_the_reason(project, pictures, tmp_path):
    log = tmp_path / "log"
    for reason, number in (("unsure", 100), ("random", 101)):
        file = pictures / "0" / f"{number}.png"
        target = log / IMAGES / reason / "ab" / md5(file)
        target.parent.mkdir(parents=True)
        shutil.copyfile(file, target)
    (log / MARK).write_text("{}")
    assert add_to_pool(project.root, log).new == 2
    assert sorted(read_pool(project.root)["why"]) == ["random", "unsure"]


def test_an_empty_folder_is_refused(project, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        add_to_pool(project.root, tmp_path / "empty")
    assert not (project.root / "data" / "pool.dvc").exists()


def test_a_checkout_without_the_images_gets_them_back(pooled):
    shutil.rmtree(pooled.root / "data" / "pool")
    assert len(read_pool(pooled.root)) == 36
