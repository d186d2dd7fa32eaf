import shutil
from dataclasses import replace

import numpy as np
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.images.transform import load
from graft.tasks.common.maps.maps import open_maps


@pytest.fixture
def maps(mapped_paths):
    return open_maps(read_feature_set(mapped_paths.features), mapped_paths)


def test_an_images_map_is_what_the_graph_gives_for_it(maps, mapped_paths):
    file, transform = mapped_paths.raw / maps.pack.index["path"].iloc[3], maps.graph.spec.transform
    expected = Engine(maps.graph.xml)(load(file, None, transform, maps.pack.reading)[None])[0]
    assert np.allclose(maps.read(np.array([3]))[0], expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


def test_the_form_says_where_places_and_channels_lie(maps):
    (level,) = maps.form.levels
    assert (level.height, level.width, level.channels) == (20, 20, sum(part.channels for part in maps.form.parts))
    assert maps.form.patches(maps.read(np.arange(2))).shape == (2, 400, level.channels)


def test_blocks_are_small_and_hold_every_row_once(maps):
    rows = np.array([5, 3, 29, 3])
    found = list(maps.blocks(rows, size=2))
    assert all(len(places) <= 2 for places, _ in found)
    assert sorted(np.concatenate([places for places, _ in found]).tolist()) == [0, 1, 2, 3]
    assert np.array_equal(maps.read(rows)[1], maps.read(rows)[3])


def test_maps_that_are_not_in_the_cache_are_computed_again(map_paths):
    maps = open_maps(read_feature_set(map_paths.features), map_paths)
    before = maps.read(np.arange(30))
    shutil.rmtree(map_paths.cache)
    again = open_maps(read_feature_set(map_paths.features), map_paths)
    assert np.array_equal(again.read(np.arange(30)), before)


def test_a_feature_set_without_maps_is_named(maps, mapped_paths):
    pack = replace(maps.pack, fingerprint={key: maps.fingerprint[key] for key in ("digest", "backbone")})
    with pytest.raises(DataError, match="only some tasks need"):
        open_maps(pack, mapped_paths)
