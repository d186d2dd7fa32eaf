"""What a page says it was made from."""

from dataclasses import replace
from importlib.metadata import version

import pytest

from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.reporting.origin import origin

POINTER = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: raw\n"


def test_images_backbone_and_features_are_named(finished_paths):
    pack = read_feature_set(finished_paths.features)
    found = origin(pack, finished_paths)
    assert found["images"] == f"{len(pack.index):,}"
    assert found["backbone"] == "test_efficientnet"
    assert found["input"] == "160 x 160 x 3"
    assert found["crop"] == "center"
    assert pack.fingerprint["weights_sha256"].startswith(found["weights"])
    assert pack.fingerprint["digest"].startswith(found["features"])
    assert found["graft"] == version("graft")


def test_the_licence_of_the_weights_is_named_where_timm_states_one(finished_paths):
    pack = read_feature_set(finished_paths.features)
    licensed = replace(pack, fingerprint={**pack.fingerprint, "licence": "cc-by-nc-4.0 (non-commercial)"})

    assert "licence" not in origin(pack, finished_paths)  # random weights
    assert origin(licensed, finished_paths)["licence"] == "cc-by-nc-4.0 (non-commercial)"


@pytest.mark.parametrize(("pointer", "expected"), [(POINTER, "0123456789abcdef0123456789abcdef.dir"), (None, None)])
def test_the_data_have_the_hash_of_dvc_if_dvc_tracks_them(paths, pointer, expected):
    if pointer:
        paths.raw.with_name("raw.dvc").write_text(pointer, encoding="utf-8")
    assert origin(read_feature_set(paths.features), paths).get("data") == expected
