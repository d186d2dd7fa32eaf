import dataclasses

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.feature_cache.segments import ids_of
from graft.tasks.register import reference_sample as module
from graft.tasks.register.reference_sample import sample_rows, write_reference
from graft.tasks.register.reference_set import Reference


@pytest.fixture
def pack(finished_paths):
    return read_feature_set(finished_paths.features)


def keys(pack, rows):
    return set(ids_of(list(pack.index["image_id"].iloc[rows])).tolist())


def written(package, pack, paths, *, tuned, refitted=False):
    write_reference(package, pack, paths, tuned=tuned, refitted=refitted)
    return Reference.load(package)


def test_of_a_frozen_network_it_is_the_training_images_as_the_pack_has_them(finished_paths, pack):
    found = Reference.load(finished_paths.package)

    assert np.array_equal(found.features_nD, pack.stored_ND[pack.rows("train")])
    assert found.fingerprint == pack.fingerprint["digest"]
    assert set(found.seen_ids.tolist()) == keys(pack, pack.rows("train", "val")), "the head was refitted"
    assert set(found.held_out_ids.tolist()) == keys(pack, pack.rows("test"))


def test_of_a_fine_tuned_network_it_is_images_that_it_was_not_trained_on_by_its_own_graph(paths, pack):
    other = dataclasses.replace(pack, stored_ND=np.zeros_like(pack.stored_ND))  # what the frozen one made of them

    found = written(paths.package, other, paths, tuned=True)

    assert np.allclose(found.features_nD, pack.stored_ND[pack.rows("val", "test")], atol=1e-5)
    assert found.fingerprint == ""
    assert set(found.seen_ids.tolist()) == keys(pack, np.arange(len(pack.index)))
    assert len(found.held_out_ids) == 0


def test_features_of_another_engine_are_computed_by_the_graph_that_will_compute_todays(paths, pack):
    other = dataclasses.replace(pack, stored_ND=pack.stored_ND + 1, fingerprint={**pack.fingerprint, "engine": "torch"})

    found = written(paths.package, other, paths, tuned=False)

    assert np.allclose(found.features_nD, pack.stored_ND[pack.rows("train")], atol=1e-5)
    assert found.fingerprint == ""


def test_it_is_a_sample_that_is_the_same_every_time(pack, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 5)

    rows = sample_rows(pack, "train")

    assert len(rows) == 5
    assert set(rows.tolist()) < set(pack.rows("train").tolist())
    assert rows.tolist() == sample_rows(pack, "train").tolist() == sorted(rows.tolist())


def test_what_the_sample_leaves_out_was_seen_all_the_same(paths, pack, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 5)

    found = written(paths.package, pack, paths, tuned=False)

    assert len(found.features_nD) == 5
    assert set(found.seen_ids.tolist()) == keys(pack, pack.rows("train"))


def test_a_network_that_was_refitted_is_compared_by_its_test_images(paths, pack):
    found = written(paths.package, pack, paths, tuned=True, refitted=True)

    assert len(found.features_nD) == len(pack.rows("test"))
    assert set(found.trained_ids.tolist()) == keys(pack, pack.rows("train", "val"))
    assert set(found.judged_ids.tolist()) == keys(pack, pack.rows("test"))


def test_a_head_that_was_not_refitted_has_seen_no_validation_image(paths, pack):
    found = written(paths.package, pack, paths, tuned=False)

    assert set(found.trained_ids.tolist()) == keys(pack, pack.rows("train"))
    assert set(found.judged_ids.tolist()) == keys(pack, pack.rows("val", "test"))


def test_of_lossless_copies_one_is_taken(pack):
    first, second = pack.rows("train")[:2]
    pixels = pack.index["pixels"].copy()
    pixels.iloc[second] = pixels.iloc[first]

    rows = sample_rows(dataclasses.replace(pack, index=pack.index.assign(pixels=pixels)), "train")

    assert first in rows
    assert second not in rows


def test_groups_are_kept(paths, pack):
    groups = pd.Series([f"scene {row // 3}" for row in range(len(pack.index))])

    found = written(paths.package, dataclasses.replace(pack, index=pack.index.assign(group=groups)), paths, tuned=False)

    assert pd.factorize(found.groups_n)[0].tolist() == pd.factorize(groups.iloc[pack.rows("train")])[0].tolist()
