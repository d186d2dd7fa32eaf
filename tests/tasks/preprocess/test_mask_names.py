import pytest

from graft.tasks.preprocess.layouts import layout_of
from graft.tasks.preprocess.mask_names import masks_in

TREE = ("train/good/1.png", "test/good/1.png", "test/crack/1.png", "test/hole/1.jpg", "readme.txt")


def found(*files):
    masks = masks_in(files, layout_of(files))
    return masks.of, masks.left


@pytest.mark.parametrize(
    "mask", ["ground_truth/crack/1_mask.png", "ground_truth/crack/1.bmp", "ground_truth/test/crack/1.png"]
)
def test_a_mask_belongs_to_the_image_of_its_kind_and_name(mask):
    assert found(*TREE, mask) == ({"test/crack/1.png": mask}, {})


def test_folders_around_everything_and_spaces_do_not_matter():
    files = ["tile/train/good/1.png", "tile/test/ crack/1.png", "tile/ground_truth/crack /1_mask.png"]
    assert found(*files)[0] == {files[1]: files[2]}


def test_beside_folders_of_classes_masks_are_masks():
    assert found("good/1.png", "crack/a/1.png", "ground_truth/crack/a/1_mask.png")[0] == {
        "crack/a/1.png": "ground_truth/crack/a/1_mask.png"
    }


def test_of_several_splits_the_test_has_the_masks():
    files = ["train/good/1.png", "val/crack/1.png", "test/crack/1.png", "ground_truth/crack/1_mask.png"]
    assert found(*files)[0] == {files[2]: files[3]}


@pytest.mark.parametrize(
    ("masks", "why"),
    [
        (["ground_truth/crack/2_mask.png"], "a mask without an image"),
        (["ground_truth/crak/1_mask.png"], "a mask without an image"),
        (["ground_truth/crack/1.png", "ground_truth/crack/1_mask.png"], "a second mask of test/crack/1.png"),
    ],
)
def test_a_mask_that_fits_no_image_says_why(masks, why):
    assert found(*TREE, *masks)[1] == {masks[-1]: why}


def test_a_mask_of_two_images_is_of_neither():
    files = ["train/good/1.png", "test/crack/1.png", "test/crack/1.jpg", "ground_truth/crack/1_mask.png"]
    assert found(*files) == ({}, {files[3]: "a mask that may be of several images: test/crack/1.png, test/crack/1.jpg"})
