import shutil

import numpy as np
import pytest
from PIL import Image

from graft.tasks.audit.thumbnails import thumbnails
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.feature_cache.thumbnails import SIDE, thumbnail_of
from graft.tasks.common.images.reading import Reading


def test_every_image_has_a_small_version_in_the_packs_order(finished_paths):
    pack = read_feature_set(finished_paths.features)
    rows = thumbnails(pack, finished_paths)
    assert rows.shape == (len(pack.index), SIDE * SIDE * 3)
    for place in (0, 17, len(rows) - 1):
        alone = thumbnail_of(finished_paths.raw / pack.index["path"].iloc[place], None, Reading())
        assert np.array_equal(rows[place], alone.astype(np.float16))


def test_a_brighter_version_of_a_picture_is_the_same(tmp_path, photo):
    image = photo(120, 90)
    image.point(lambda value: 40 + value // 2).save(tmp_path / "a.png")
    image.point(lambda value: 70 + value // 2).save(tmp_path / "b.png")
    a, b = thumbnail_of(tmp_path / "a.png", None, Reading()), thumbnail_of(tmp_path / "b.png", None, Reading())
    assert np.abs(a - b).max() <= 1
    assert np.abs(a).max() > 10


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_an_image_of_any_number_of_channels_has_one(tmp_path, photo, channels):
    bands = np.dstack([np.asarray(photo(40, 30))[..., 0]] * channels)
    np.save(tmp_path / "a.npy", bands)
    assert thumbnail_of(tmp_path / "a.npy", None, Reading(channels)).shape == (SIDE * SIDE * channels,)


def test_what_features_left_is_what_the_audit_would_make_itself(paths, run_stage, monkeypatch):
    pack = read_feature_set(paths.features)
    shutil.rmtree(paths.cache / "thumbnails")
    own = thumbnails(pack, paths)
    shutil.rmtree(paths.cache / "thumbnails")
    shutil.rmtree(paths.cache / "features")
    run_stage("features", paths, views=1)
    monkeypatch.setattr(Reading, "file", None)
    assert np.array_equal(thumbnails(pack, paths), own)


def test_only_what_features_has_not_left_is_decoded(paths, run_stage, decoded):
    shutil.rmtree(paths.cache / "thumbnails")
    run_stage("features", paths)  # computes nothing, so decodes nothing
    pack = read_feature_set(paths.features)
    thumbnails(pack, paths)
    assert decoded.total() == len(pack.index)


def test_an_image_is_decoded_once_in_its_life(paths, monkeypatch):
    pack = read_feature_set(paths.features)
    shutil.rmtree(paths.cache / "thumbnails")
    first = thumbnails(pack, paths)
    monkeypatch.setattr(Reading, "file", None)
    assert np.array_equal(thumbnails(pack, paths), first)


def test_the_cache_is_not_that_of_the_features(paths):
    thumbnails(read_feature_set(paths.features), paths)
    assert {folder.name for folder in (paths.cache / "features").iterdir()} == {
        read_feature_set(paths.features).fingerprint["digest"]
    }


def test_a_file_that_has_become_unreadable_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        thumbnail_of(tmp_path / "a.png", None, Reading())


def test_a_picture_smaller_than_its_small_version_has_one_too(tmp_path):
    Image.new("RGB", (4, 3), (200, 10, 10)).save(tmp_path / "a.png")
    assert (thumbnail_of(tmp_path / "a.png", None, Reading()) == 0).all()
