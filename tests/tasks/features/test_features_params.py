import pytest

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.core.sections import parse_section
from graft.tasks.features.params import FeaturesParams


def parsed(size):
    return parse_section(FeaturesParams, {"image_size": size}, "features").image_size


@pytest.mark.parametrize(
    ("given", "expected"), [(None, None), ("train", "train"), (96, (96, 96)), ([96, 128], (96, 128))]
)
def test_a_size_is_one_number_or_height_and_width(given, expected):
    assert parsed(given) == expected


@pytest.mark.parametrize("given", [0, -3, 4097, 9.5, True, "96x96", [96], [], [1, 2, 0], [96, 0], [96, None]], ids=str)
def test_another_size_is_refused_in_one_sentence(given):
    with pytest.raises(ParamsError) as refused:
        parsed(given)
    assert refused.value.what == (
        "params.yaml: `features.image_size`: must be a number from 1 to 4096, [height, width], train, or null; "
        "for several sizes a list of [height, width], or of three or more numbers"
    )
    assert refused.value.got == repr(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([[160, 160], [224, 288]], ((160, 160), (224, 288))),
        ([160, 224, 288], ((160, 160), (224, 224), (288, 288))),
        ([160, [224, 288]], ((160, 160), (224, 288))),
        ([[160, 224]], (160, 224)),
    ],
    ids=str,
)
def test_several_sizes_are_a_list_of_sizes(given, expected):
    assert parsed(given) == expected


def features(**values):
    return parse_section(FeaturesParams, values, "features")


def test_each_backbone_is_combined_with_each_size_and_has_its_own_weights():
    several = features(backbone=["a", "b"], weights=["random", "auto"], image_size=[[64, 64], [96, 96]])
    assert [one.eye for one in several.eyes] == [
        ("a", "random", None, (64, 64)),
        ("a", "random", None, (96, 96)),
        ("b", "auto", None, (64, 64)),
        ("b", "auto", None, (96, 96)),
    ]


def test_one_backbone_in_a_list_is_that_backbone():
    assert features(backbone=["a"]) == features(backbone="a")
    assert features(backbone="a").eyes == [features(backbone="a")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"backbone": ["a", "b"], "weights": ["auto"] * 3}, "`weights` must have one entry for each backbone"),
        ({"backbone": ["a", "b"], "weights_sha256": "0" * 64}, "`weights_sha256` must be a list"),
        ({"backbone": ["a", "b"], "weights_sha256": ["0" * 64, "x"]}, "should match pattern"),
        ({"backbone": ["a", "a"]}, "named twice, got a, a"),
        ({"image_size": [64, 64, 96]}, "named twice"),
        ({"backbone": []}, "backbone"),
    ],
    ids=str,
)
def test_lists_that_do_not_agree_are_refused(values, said):
    with pytest.raises(ParamsError, match=said):
        features(**values)


def test_what_needs_one_backbone_refuses_several():
    with pytest.raises(ParamsError, match="must name one backbone and one size") as refused:
        _ = features(backbone=["a", "b"], image_size=64).eye
    assert refused.value.got == "a at 64 x 64, b at 64 x 64"
