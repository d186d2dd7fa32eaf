import shutil

import numpy as np
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.files import md5
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.feature_cache.segments import ids_of
from graft.tasks.register.reference_set import Reference, package_features


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_was_saved_is_loaded(tmp_path, dtype):
    ids = ids_of([f"{number:032x}" for number in range(5)])
    saved = Reference(np.arange(6, dtype=dtype).reshape(3, 2), np.array([0, 0, 1]), ids[:3], ids[3:], "abc")
    saved.save(tmp_path)

    loaded = Reference.load(tmp_path)

    assert loaded.fingerprint == "abc"
    assert loaded.features_nD.dtype == dtype
    for name in ("features_nD", "groups_n", "seen_ids", "held_out_ids"):
        assert np.array_equal(getattr(loaded, name), getattr(saved, name))


def test_no_ids_are_loaded_as_none(tmp_path):
    Reference(np.ones((1, 2), np.float32), np.array([0]), ids_of([]), ids_of([]), "").save(tmp_path)

    assert len(Reference.load(tmp_path).held_out_ids) == 0


def test_a_package_without_one_gives_none(tmp_path):
    assert Reference.load(tmp_path) is None


def test_a_package_gives_the_features_of_the_stage(finished_paths):
    pack = read_feature_set(finished_paths.features)
    files = [finished_paths.raw / path for path in pack.index["path"]]

    assert np.allclose(
        package_features(finished_paths.package, files, list(pack.index["image_id"]), "test"), pack.stored_ND, atol=1e-5
    )


def test_a_file_that_is_no_image_is_named(finished_paths, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")

    with pytest.raises(DataError, match=r"broken\.png cannot be read"):
        package_features(finished_paths.package, [tmp_path / "broken.png"], [md5(tmp_path / "broken.png")], "test")


def test_of_no_files_there_are_no_features(finished_paths, tmp_path):
    package = shutil.copytree(finished_paths.package, tmp_path / "package")

    assert len(package_features(package, [], [], "test")) == 0
