import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError, ParamsError
from graft.tasks.common.core.files import read_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.manifest import write_table
from graft.tasks.common.heads.decoder import DecoderHead
from graft.tasks.common.heads.load import load_head
from graft.tasks.head.params import HeadParams
from graft.tasks.head.reconstruction import epochs_of

MASKS = {"task": "reconstruction", "target": "mask", "decoder_width": 4, "decoder_epochs": 1, "untrained": False}


@pytest.fixture
def changed(segmented_paths, tmp_path):
    """changed(column=function of the index) -> the project with another index of its features."""

    def make(**columns):
        paths = Paths(tmp_path / "changed")
        paths.features.mkdir(parents=True)
        for file in segmented_paths.features.iterdir():
            (paths.features / file.name).symlink_to(file)
        for name in ("raw", "cache", "weights"):
            place = getattr(paths, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(getattr(segmented_paths, name))
        index = pd.read_parquet(segmented_paths.features / "index.parquet")
        (paths.features / "index.parquet").unlink()
        write_table(index.assign(**columns), paths.features / "index.parquet")
        return paths

    return make


def test_the_head_is_a_decoder_that_says_what_it_decodes(segmented_paths):
    head = load_head(segmented_paths.head)
    assert isinstance(head, DecoderHead)
    assert (head.target, head.plan.image) == ("mask", (1, 64, 64))
    assert 0 < head.threshold < 1


def test_the_metric_of_the_gate_is_a_share(segmented_paths):
    assert read_json(segmented_paths.head / "head.json")["metric"] == "dice"


def test_held_out_images_are_listed_with_their_counts(segmented_paths):
    table = pd.read_parquet(segmented_paths.head / "validation.parquet")
    pack = read_feature_set(segmented_paths.features)
    assert list(table["image_id"]) == list(pack.index["image_id"].iloc[pack.rows("val")])
    assert {"both", "found", "marked"} <= set(table)


def test_the_same_data_give_the_same_bytes(changed, run_stage):
    paths, files = changed(), ("head.safetensors", "head.json", "validation.parquet")
    found = []
    for _ in range(2):
        run_stage("head", paths, **MASKS)
        found.append([(paths.head / name).read_bytes() for name in files])
    assert found[0] == found[1]


def test_an_image_is_decoded_to_itself_by_default(changed, run_stage):
    paths = changed()
    record = run_stage("head", paths, **{**MASKS, "target": "image"})
    assert load_head(paths.head).plan.image == (3, 64, 64)
    assert set(record.metrics["candidates"]["pretrained"]) == {
        f"{key}{end}" for key in ("psnr", "ssim") for end in ("", "_low", "_high")
    }
    assert not (paths.head / "pixel_threshold.json").exists()


def test_without_any_mask_the_target_mask_is_refused(changed, run_stage):
    with pytest.raises(DataError, match="no image has a mask"):
        run_stage("head", changed(mask=None), **MASKS)


def test_masks_in_the_test_alone_are_refused(changed, run_stage):
    paths = changed(mask=lambda index: index["mask"].where(index["split"] == "test", None))
    with pytest.raises(DataError, match="no image in the split train has"):
        run_stage("head", paths, **MASKS)


def test_an_image_without_a_mask_that_is_not_good_is_left_out(changed, run_stage):
    paths = changed(label="square")
    index = read_feature_set(paths.features).index
    record = run_stage("head", paths, **MASKS)
    assert record.metrics["train_images"] == int((index["mask"].notna() & (index["split"] == "train")).sum())


def test_a_part_of_the_images_cannot_be_decoded_to_whole_ones(segmented_paths, changed, run_stage):
    paths = changed()
    fingerprint = read_json(segmented_paths.features / "fingerprint.json")
    fingerprint["maps"]["transform"]["crop_mode"] = "center"
    (paths.features / "fingerprint.json").unlink()
    import json

    (paths.features / "fingerprint.json").write_text(json.dumps(fingerprint))
    with pytest.raises(ParamsError, match="whole images"):
        run_stage("head", paths, **MASKS)


def test_few_images_are_seen_more_often_than_many():
    params = HeadParams(task="reconstruction")
    assert [epochs_of(params, images) for images in (10, 400, 100_000)] == [60, 30, 5]
    assert epochs_of(HeadParams(decoder_epochs=7), 10) == 7


def test_no_scratch_file_is_left(segmented_paths):
    assert not any(segmented_paths.tmp.iterdir())


def test_maps_and_targets_are_finite(segmented_paths):
    head = load_head(segmented_paths.head)
    assert all(np.isfinite(weight).all() for weight in head.tensors().values())
