import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.files import read_json
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.data.task import main_in
from graft.tasks.common.scoring.decoded import columns
from graft.tasks.common.scoring.images import of_resamples
from graft.tasks.evaluate.decoded_plot import DecodedExample, colours


@pytest.fixture(scope="module")
def record(segmented_paths, run_stage):
    """The stage once more on the finished project."""
    return run_stage("evaluate", segmented_paths)


def test_the_metrics_of_masks_are_at_the_top_with_their_intervals(record):
    found = record.metrics
    assert main_in(found).key == "dice"
    assert found["dice_low"] <= found["dice"] <= found["dice_high"]
    assert found["iou"] == pytest.approx(found["dice"] / (2 - found["dice"]))
    assert "psnr" not in found


def test_squares_are_found(record):
    assert record.metrics["dice"] > 0.6


def test_the_same_decoder_on_random_weights_and_a_threshold_of_grey_values_are_stated_beside_it(record):
    found = record.metrics
    assert set(found["candidates"]) == {"pretrained", "untrained"}
    assert found["candidates"]["pretrained"]["dice"] == found["dice"]
    assert found["candidates"]["untrained"]["dice"] != found["dice"]
    assert found["pixel_threshold"]["dice"] > 0.9
    assert not found["pixel_threshold"]["darker"]


def test_the_marked_area_separates_good_images_from_the_others(record):
    assert record.metrics["auroc"] > 0.8


def test_the_table_of_predictions_gives_the_metrics(record, segmented_paths):
    table = pd.read_parquet(segmented_paths.report / "predictions.parquet")
    assert list(table) == ["image_id", "path", "label", "value", "both", "found", "marked"]
    assert of_resamples(columns(table), "dice", np.ones((1, len(table))))[0] == pytest.approx(record.metrics["dice"])


def test_the_page_shows_the_comparison_and_the_pictures(record, segmented_paths):
    page = (segmented_paths.report / "index.html").read_text()
    assert "the same on random weights" in page
    assert "a threshold of grey values" in page
    assert (segmented_paths.report / "worst.png").is_file()


def test_the_headline_has_the_main_metric(record, segmented_paths):
    assert {"dice", "dice_low", "dice_high", "iou", "images"} <= set(
        read_json(segmented_paths.root / "metrics" / "headline.json")
    )


def test_every_test_image_with_a_target_is_counted(record, segmented_paths):
    assert record.metrics["images"] == len(read_feature_set(segmented_paths.features).rows("test"))
    assert record.metrics["without_target"] == 0


def test_the_error_of_a_perfect_image_is_black():
    grey = np.full((4, 4, 1), 51, np.uint8)
    sides = DecodedExample("", np.zeros((4, 4, 3), np.uint8), grey, np.full((4, 4, 1), 0.2, np.float32)).sides()
    assert np.array_equal(sides[1], sides[2])
    assert not sides[3].any()


def test_an_image_of_other_than_three_channels_shows_the_first():
    shown = colours(np.dstack([np.full((2, 2), 9), np.zeros((2, 2))]))
    assert shown.shape == (2, 2, 3)
    assert (shown == 9).all()
