import pytest

from tasks.common.core.errors import ParamsError
from tasks.common.core.sections import parse_section
from tasks.features.params import FeaturesParams


def parsed(size):
    return parse_section(FeaturesParams, {"image_size": size}, "features").image_size


@pytest.mark.parametrize(("given", "expected"), [(None, None), (96, (96, 96)), ([96, 128], (96, 128))])
def test_a_size_is_one_number_or_height_and_width(given, expected):
    assert parsed(given) == expected


@pytest.mark.parametrize("given", [0, -3, 4097, 9.5, True, "96x96", [96], [1, 2, 3], [96, 0], [96, None]], ids=str)
def test_another_size_is_refused_in_one_sentence(given):
    with pytest.raises(ParamsError) as refused:
        parsed(given)
    assert refused.value.what == (
        "params.yaml: `features.image_size`: must be a number from 1 to 4096, [height, width], or null"
    )
    assert refused.value.got == repr(given)
