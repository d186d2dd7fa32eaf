"""Heat maps: scores over a picture, in units of the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.reporting.heat_map import LINE, enlarged, overlay, shown

GREY = np.full((40, 60, 3), 120, np.uint8)


def test_a_part_far_below_the_threshold_stays_as_it_is() -> None:
    assert (overlay(GREY, np.full((4, 6), 0.7), 1.0) == GREY).all()


def test_a_part_above_the_threshold_is_coloured_and_outlined() -> None:
    map_hw = np.zeros((4, 6), np.float32)
    map_hw[1, 2] = 30.0

    found = overlay(GREY, map_hw, 10.0)

    assert (found[:8, 50:] == GREY[:8, 50:]).all()
    red, green, blue = found[15, 25].astype(int)
    assert red > green + 40
    assert red > blue + 40
    assert (found == LINE).all(axis=2).any()


def test_colours_depend_on_the_ratio_to_the_threshold_alone() -> None:
    map_hw = np.random.default_rng(0).random((5, 5)).astype(np.float32)

    assert (overlay(GREY, 2 * map_hw, 2.0) == overlay(GREY, map_hw, 1.0)).all()


def test_scores_that_are_not_finite_count_as_none() -> None:
    assert (overlay(GREY, np.array([[np.nan, np.inf], [0.0, 0.0]]), 1.0) == GREY).all()


def test_the_map_has_the_size_of_the_picture_whatever_its_aspect() -> None:
    assert enlarged(np.zeros((7, 7), np.float32), 600, 100).shape == (100, 600)


@pytest.mark.parametrize(("size", "expected"), [((60, 40), (40, 60, 3)), ((3000, 500), (171, 1024, 3))])
def test_large_pictures_are_shown_smaller(size: tuple[int, int], expected: tuple[int, int, int]) -> None:
    assert shown((Image.new("RGB", size),)).shape == expected


def test_of_two_bands_the_first_is_shown_in_grey() -> None:
    found = shown((Image.new("L", (4, 4), 7), Image.new("L", (4, 4), 9)))

    assert (found == 7).all()
    assert found.shape == (4, 4, 3)
