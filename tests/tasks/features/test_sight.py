"""What is said of images that the network does not see whole, and of large inputs."""

import pandas as pd
import pytest

from graft.tasks.common.backbones.spec import AS_TRAINED, Spec
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.features.sight import cost, unseen

OWN = EvalTransform(224, 224, 0.875, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)


def manifest(*sizes):
    return pd.DataFrame(sizes, columns=["width", "height"]).astype("int32")


@pytest.mark.parametrize(("size", "seen"), [((640, 480), 0.574), ((480, 640), 0.574), ((1000, 250), 0.191)])
def test_the_share_of_one_image(size, seen):
    found = unseen(manifest(size), [OWN])
    assert found.share == found.worst == pytest.approx(1 - seen, abs=0.001)


def test_large_images_count_by_their_area_and_the_worst_is_named():
    found = unseen(manifest((1000, 250), (1000, 250), (1000, 1000)), [OWN])
    hidden, square = 1 - OWN.seen(1000, 250), 1 - OWN.seen(1000, 1000)
    assert found.share == pytest.approx((2 * hidden * 250_000 + square * 1_000_000) / 1_500_000)
    assert (found.worst, found.size) == (pytest.approx(hidden), (1000, 250))


def test_what_one_of_several_networks_sees_is_seen():
    assert unseen(manifest((640, 480)), [OWN, OWN.showing("border")]).share == 0


def test_much_that_is_unseen_is_said_with_the_cure():
    said = unseen(manifest((1000, 250), (640, 480)), [OWN]).advice()
    assert "does not see 60% of the area" in said
    assert "at worst 81%, of 1000 x 250" in said
    assert "`features.crop: border` or `squash`" in said


@pytest.mark.parametrize("sizes", [[(300, 300)], [(300, 300), (105, 100)]])
def test_the_usual_margin_of_square_images_is_not_worth_a_word(sizes):
    assert unseen(manifest(*sizes), [OWN]).advice() == ""


@pytest.mark.parametrize("crop", ["squash", "border"])
def test_nothing_is_said_when_all_is_seen(crop):
    assert unseen(manifest((1000, 250)), [OWN.showing(crop)]).advice() == ""


def spec(height, width):
    transform = EvalTransform(height, width, 1.0, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)
    return Spec("dino", "random: 0", "0" * 64, 384, 1, AS_TRAINED, transform, {})


def test_a_large_input_is_said_with_what_it_costs():
    said = cost(spec(518, 518))
    assert "dino takes images of 518 x 518, 5.3 times the pixels of 224 x 224" in said
    assert "`features.image_size: 224`" in said


@pytest.mark.parametrize("size", [(224, 224), (256, 256), (160, 320)])
def test_the_usual_size_costs_no_word(size):
    assert cost(spec(*size)) == ""
