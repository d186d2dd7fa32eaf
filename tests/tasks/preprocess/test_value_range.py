import pandas as pd
import pytest

from graft.tasks.common.core.errors import DataError
from graft.tasks.preprocess.params import PreprocessParams
from graft.tasks.preprocess.value_range import reading_of


def images(*rows):
    return pd.DataFrame(rows, columns=["path", "mode", "low", "high"])


EIGHT, TWELVE, FLOAT = ("a.png", "RGB", None, None), ("b.png", "I;16", 5, 4000), ("c.tif", "F", 0.1, 0.9)


def test_images_of_eight_bits_have_no_range(capsys):
    assert reading_of(images(EIGHT), PreprocessParams()).span is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("row", "expected"), [(TWELVE, (0, 4095)), (FLOAT, (0, 1))])
def test_the_range_is_taken_from_the_data_and_said(row, expected, capsys):
    assert reading_of(images(EIGHT, row), PreprocessParams()).span == expected
    assert f"{expected[0]} and {expected[1]} become black and white" in capsys.readouterr().err


def test_a_declared_range_is_taken_even_before_such_an_image_comes():
    assert reading_of(images(EIGHT), PreprocessParams(range=(0, 1023))).span == (0, 1023)


def test_images_that_a_declared_range_clips_are_named(capsys):
    reading_of(images(TWELVE), PreprocessParams(range=(0, 1023)))
    assert "1 of 1" in (said := capsys.readouterr().err)
    assert "b.png" in said


def test_integers_and_floats_that_no_range_fits_are_refused():
    with pytest.raises(DataError, match=r"preprocess\.range"):
        reading_of(images(TWELVE, FLOAT), PreprocessParams())


def test_a_range_without_width_is_refused():
    with pytest.raises(ValueError, match="below the second"):
        PreprocessParams(range=(5, 5))
