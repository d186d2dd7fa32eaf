from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.maps.maps import open_maps
from graft.tasks.common.maps.targets import Targets
from graft.tasks.common.maps.untrained import is_untrained, untrained


@pytest.fixture(scope="module")
def pack(segmented_paths):
    return read_feature_set(segmented_paths.features)


@pytest.fixture(scope="module")
def maps(pack, segmented_paths):
    return open_maps(pack, segmented_paths)


def targets(pack, paths, maps, kind="mask"):
    return Targets.of(pack, paths, maps.graph.spec.transform, kind)


def test_the_maps_are_a_pyramid_from_fine_to_coarse(maps):
    heights = [level.height for level in maps.form.levels]
    assert heights == sorted(heights, reverse=True)
    assert maps.form.dimension == sum(level.channels * level.height * level.width for level in maps.form.levels)


def test_a_mask_is_learned_as_shares_of_the_networks_pixels(pack, segmented_paths, maps):
    found = targets(pack, segmented_paths, maps)
    row = int(np.flatnonzero(pack.index["mask"].notna())[0])
    marked = found.marked(row)
    assert marked.shape == (40, 48)
    assert found.read(row).shape == (1, 64, 64)
    assert found.read(row).mean() / 255 == pytest.approx(marked.mean(), abs=1e-3)


def test_a_good_image_without_a_mask_has_nothing_marked(pack, segmented_paths, maps):
    row = int(np.flatnonzero(pack.index["label"] == "good")[0])
    assert not targets(pack, segmented_paths, maps).read(row).any()


def test_the_image_itself_is_what_the_network_sees(pack, segmented_paths, maps):
    found = targets(pack, segmented_paths, maps, "image")
    assert np.array_equal(found.read(3), np.moveaxis(found.picture(3), 2, 0))


def test_another_image_of_the_data_may_have_another_size(pack, segmented_paths, maps, tmp_path):
    Image.new("RGB", (31, 17), (255, 0, 51)).save(segmented_paths.root / "clean.png")
    index = pack.index.assign(target=[None, "../../clean.png", *[None] * (len(pack.index) - 2)])
    found = targets(replace(pack, index=index), segmented_paths, maps, "target")
    assert found.usable(np.arange(5)).tolist() == [1]
    assert (found.read(1) == np.array([255, 0, 51])[:, None, None]).all()


def test_a_column_without_any_target_is_refused(pack, segmented_paths, maps):
    with pytest.raises(DataError, match="no image has a target"):
        targets(pack, segmented_paths, maps, "target")


def test_all_targets_are_read_in_order(pack, segmented_paths, maps):
    found = targets(pack, segmented_paths, maps)
    rows = np.array([7, 2, 9])
    assert [place for place, _ in found.read_all(rows)] == [0, 1, 2]
    assert all(np.array_equal(target, found.read(int(rows[place]))) for place, target in found.read_all(rows))


def test_maps_of_random_weights_have_the_form_of_the_others_and_other_values(maps):
    other = untrained(maps)
    assert is_untrained(other)
    assert not is_untrained(maps)
    assert other.form == maps.form
    assert other.fingerprint["digest"] != maps.fingerprint["digest"]
    assert not np.array_equal(other.read(np.array([0])), maps.read(np.array([0])))
