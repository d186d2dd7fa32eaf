import numpy as np
import pandas as pd

from graft.tasks.common.data.units import joined, units


def table(pixels, groups=None):
    return pd.DataFrame({"pixels": list(pixels), "group": pd.array(groups or [None] * len(pixels), "string")})


def together(index):
    """The sets of rows that are one unit."""
    unit_N, names = units(index)
    assert unit_N.dtype == np.int64
    assert set(unit_N) == set(range(len(names)))
    return {tuple(np.flatnonzero(unit_N == unit).tolist()) for unit in range(len(names))}


def test_an_image_is_a_unit_of_its_own():
    assert together(table("abc")) == {(0,), (1,), (2,)}


def test_files_with_the_same_pixels_are_one_unit():
    assert together(table("abca")) == {(0, 3), (1,), (2,)}


def test_the_images_of_a_group_are_one_unit():
    assert together(table("abcd", ["x", None, "x", "y"])) == {(0, 2), (1,), (3,)}


def test_groups_that_share_a_picture_are_one_unit_directly_or_through_others():
    assert together(table("abbccd", ["x", "x", "y", "y", None, "z"])) == {(0, 1, 2, 3, 4), (5,)}


def test_the_names_of_units_do_not_depend_on_the_order_of_the_images():
    index = table("abbccd", ["x", "x", "y", "y", None, "z"])
    assert set(units(index)[1]) == set(units(index.iloc[::-1])[1]) == {"c", "group:z"}
    assert units(table("ba"))[1] == ["b", "a"]


def test_units_that_share_a_picture_by_other_evidence_are_joined():
    unit_N, names = joined(np.array([0, 1, 1, 2]), ["b", "a", "c"], np.array([5, 5, 6, 7]))
    assert unit_N.tolist() == [0, 0, 0, 1]
    assert names == ["a", "c"]
