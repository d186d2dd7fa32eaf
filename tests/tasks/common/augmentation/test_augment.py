from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.augmentation.augment import Augment, described, named_recipe, views_recipe
from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import EvalTransform, load

TRANSFORM = EvalTransform(48, 48, 0.9, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def file(photo, tmp_path):
    photo(120, 90).save(tmp_path / "a.png")
    return tmp_path / "a.png"


RECIPE = {"crop_scale": 0.6, "flip": True, "colour": 0.2}


def augmentation(transform=TRANSFORM, seed=0, **changes):
    return Augment(transform, views_recipe(transform, **{**RECIPE, **changes}), seed, Reading(transform.channels))


def view(file, image_id=IMAGE_ID, epoch=0, transform=TRANSFORM, **changes):
    return view_by(augmentation(transform, **changes), file, image_id, epoch)


def view_by(augment, file, image_id, epoch):
    return augment.view(augment.resized(file, None), image_id, epoch)


def test_the_same_image_epoch_and_seed_give_the_same_pixels(file):
    assert np.array_equal(view(file), view(file))


def test_one_object_gives_the_same_pixels_again_whatever_it_was_asked_between(file):
    augment = augmentation(TRANSFORM)
    first = view_by(augment, file, IMAGE_ID, 0)
    view_by(augment, file, IMAGE_ID, 1)
    assert np.array_equal(view_by(augment, file, IMAGE_ID, 0), first)


def test_another_epoch_gives_other_pixels(file):
    assert not np.array_equal(view(file, epoch=0), view(file, epoch=1))


def test_another_seed_gives_other_pixels(file):
    assert not np.array_equal(view(file, seed=0), view(file, seed=1))


def test_another_image_is_seen_another_way(file):
    assert not np.array_equal(view(file), view(file, image_id="f" * 32))


def test_threads_change_nothing(file):
    augment = augmentation(TRANSFORM)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda epoch: view_by(augment, file, IMAGE_ID, epoch), range(24)))
    assert all(np.array_equal(pixels, view(file, epoch=epoch)) for epoch, pixels in enumerate(together))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (32, 64)])
@pytest.mark.parametrize("size", [(120, 90), (20, 90), (7, 7)], ids=str)
def test_a_view_has_the_networks_size(photo, tmp_path, height, width, size):
    photo(*size).save(tmp_path / "b.png")
    transform = EvalTransform(height, width, 0.9, "center", "bicubic", TRANSFORM.mean, TRANSFORM.std)
    pixels = view(tmp_path / "b.png", transform=transform)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8


def test_a_grey_image_becomes_rgb(photo, tmp_path):
    photo(60, 60).convert("L").save(tmp_path / "g.png")
    assert view(tmp_path / "g.png").shape == (48, 48, 3)


def sides(tmp_path, noise, flip):
    """Whether the bright side of an image that is bright on the left is on the left, over epochs."""
    image = noise(100, 100, spread=5)
    image.paste((250, 250, 250), (0, 0, 50, 100))
    image.save(tmp_path / "half.png")
    views = [view(tmp_path / "half.png", epoch=epoch, flip=flip, crop_scale=0.9) for epoch in range(30)]
    return {bool(pixels[:, :12].mean() > pixels[:, -12:].mean()) for pixels in views}


def test_images_are_mirrored_at_random(tmp_path, noise):
    assert sides(tmp_path, noise, flip=True) == {True, False}


def test_without_flip_left_stays_left(tmp_path, noise):
    assert sides(tmp_path, noise, flip=False) == {True}


def test_without_colour_a_flat_image_keeps_its_colour(tmp_path, noise):
    noise(60, 60, spread=0).save(tmp_path / "flat.png")
    assert all((view(tmp_path / "flat.png", epoch=epoch, colour=0) == 128).all() for epoch in range(5))


def test_with_colour_brightness_varies_between_epochs(tmp_path, noise):
    noise(60, 60, spread=0).save(tmp_path / "flat.png")
    assert len({int(view(tmp_path / "flat.png", epoch=epoch, colour=0.3).mean()) for epoch in range(8)}) > 1


def of_bands(count):
    return EvalTransform(48, 64, 0.9, "center", "bicubic", (0.5,) * count, (0.5,) * count)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_a_view_has_the_channels_of_the_transform(noise, tmp_path, count):
    values = np.dstack([np.asarray(noise(60, 60, seed=c))[..., 0] for c in range(count)])
    np.save(tmp_path / "a.npy", values)
    pixels = view(tmp_path / "a.npy", transform=of_bands(count))
    assert pixels.shape == (48, 64, count)
    assert pixels.dtype == np.uint8


def test_all_bands_of_a_view_are_cropped_and_mirrored_alike(photo, tmp_path):
    plane = np.asarray(photo(90, 120).convert("L"))
    np.save(tmp_path / "a.npy", np.dstack([plane] * 5))
    for epoch in range(6):
        pixels = view(tmp_path / "a.npy", epoch=epoch, transform=of_bands(5))
        assert all(np.array_equal(pixels[..., 0], pixels[..., c]) for c in range(1, 5))


def test_the_colours_of_five_bands_do_not_vary(tmp_path):
    np.save(tmp_path / "a.npy", np.full((60, 60, 5), (10, 60, 110, 160, 210), np.uint8))
    for epoch in range(6):
        assert (
            view(tmp_path / "a.npy", epoch=epoch, transform=of_bands(5), colour=0.9) == (10, 60, 110, 160, 210)
        ).all()


def test_the_brightness_of_grey_varies(noise, tmp_path):
    noise(60, 60, spread=0).convert("L").save(tmp_path / "g.png")
    views = [view(tmp_path / "g.png", epoch=epoch, transform=of_bands(1), colour=0.3) for epoch in range(8)]
    assert len({int(pixels.mean()) for pixels in views}) > 1


NAMES = ["none", "light", "standard", "strong"]


def named(recipe, transform=TRANSFORM, flip=True):
    return Augment(transform, named_recipe(recipe, transform, flip=flip), 0, Reading(transform.channels))


@pytest.mark.parametrize("recipe", NAMES)
@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_every_recipe_gives_images_of_the_networks_size_and_channels(noise, tmp_path, recipe, count):
    values = np.dstack([np.asarray(noise(90, 70, seed=c))[..., 0] for c in range(count)])
    np.save(tmp_path / "a.npy", values)
    augment = named(recipe, of_bands(count))
    for epoch in range(12):
        pixels = view_by(augment, tmp_path / "a.npy", IMAGE_ID, epoch)
        assert (pixels.shape, pixels.dtype) == ((48, 64, count), np.uint8)


def test_nothing_random_is_the_image_as_evaluated(file):
    assert (
        np.abs(view_by(named("none"), file, IMAGE_ID, 3).astype(int) - load(file, None, TRANSFORM, Reading())).mean()
        < 3
    )
    assert np.array_equal(view_by(named("none"), file, IMAGE_ID, 3), view_by(named("none"), file, IMAGE_ID, 4))


def test_the_standard_is_the_recipe_of_views_with_its_defaults(file):
    assert np.array_equal(view_by(named("standard"), file, IMAGE_ID, 1), view(file, epoch=1))


def test_stronger_recipes_change_more(tmp_path):
    shade = np.linspace(60, 200, 120 * 90 * 3).reshape(90, 120, 3).astype(np.uint8)
    Image.fromarray(shade).save(tmp_path / "shade.png")
    plain = view_by(named("none"), tmp_path / "shade.png", IMAGE_ID, 0).astype(int)
    changes = [
        np.mean(
            [
                np.abs(view_by(named(name), tmp_path / "shade.png", IMAGE_ID, epoch) - plain).mean()
                for epoch in range(40)
            ]
        )
        for name in NAMES
    ]
    assert changes[0] == 0
    assert changes == sorted(changes)


@pytest.mark.parametrize("recipe", NAMES)
def test_without_flip_no_recipe_mirrors(recipe):
    assert "HorizontalFlip" not in str(described(named_recipe(recipe, TRANSFORM, flip=False)))


@pytest.mark.parametrize("recipe", NAMES)
def test_a_recipe_can_be_written_as_a_list_and_is_then_the_same(file, recipe):
    steps = described(named_recipe(recipe, TRANSFORM, flip=True))
    again = named(steps)
    # the centre crop that follows a list draws no random number, but every step has a generator of its own
    assert described(again.recipe)[:-1] == steps
    assert view_by(again, file, IMAGE_ID, 2).shape == (48, 48, 3)


def test_a_list_needs_no_crop_of_its_own(file):
    assert view_by(named([{"__class_fullname__": "HorizontalFlip", "p": 1.0}]), file, IMAGE_ID, 0).shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"__class_fullname__": "HorizontalFlop"}], "HorizontalFlop"),
        ([{"__class_fullname__": "GaussianBlur", "sigma": 3, "p": 1}], "sigma"),
        ([{"__class_fullname__": "HorizontalFlip", "p": 7}], "p"),
        ([{"__class_fullname__": "Normalize", "p": 1.0}], "float32"),
    ],
    ids=["unknown step", "unknown argument", "value out of range", "no image comes out"],
)
def test_a_list_that_is_no_recipe_is_one_clear_error(steps, words):
    with pytest.raises(ParamsError, match=r"finetune.augment") as caught:
        named_recipe(steps, TRANSFORM, flip=True)
    assert words in str(caught.value)
    assert "none | light | standard | strong" in str(caught.value)


def test_whether_one_step_happens_says_nothing_of_another(file):
    steps = [{"__class_fullname__": name, "p": 0.5} for name in ("HorizontalFlip", "VerticalFlip", "InvertImg")]
    augment = named(steps)
    seen = {view_by(augment, file, IMAGE_ID, epoch).tobytes() for epoch in range(80)}
    assert len(seen) == 8


@pytest.mark.parametrize("recipe", ["light", "standard", "strong"])
@pytest.mark.parametrize("size", [(480, 320), (270, 480)], ids=["3 to 2", "9 to 16"])
def test_views_of_elongated_images_differ_as_others_do(tmp_path, recipe, size):
    path = tmp_path / "long.png"
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    augment = named(recipe, flip=False)
    assert len({view_by(augment, path, IMAGE_ID, epoch).tobytes() for epoch in range(60)}) >= 58


def test_other_views_of_the_same_number_would_be_noticed(file):
    """Raise `VIEWS` in `cache` if this has to change: features of views are kept under their number."""
    assert [int(view(file, epoch=epoch).sum()) for epoch in range(3)] == [867615, 877902, 911711]


# The whole image


@pytest.mark.parametrize("crop", ["squash", "border"])
@pytest.mark.parametrize("size", [(160, 40), (40, 160), (120, 90)], ids=str)
def test_without_augmentation_training_shows_what_evaluation_does(photo, tmp_path, crop, size):
    photo(*size).save(tmp_path / "w.png")
    transform = TRANSFORM.showing(crop)
    augment = Augment(transform, named_recipe("none", transform, flip=True), 0, Reading(transform.channels))
    assert np.array_equal(
        view_by(augment, tmp_path / "w.png", IMAGE_ID, 1), load(tmp_path / "w.png", None, transform, Reading())
    )


@pytest.mark.parametrize(("crop", "found"), [("center", False), ("squash", True), ("border", True)])
def test_a_random_view_may_show_both_ends_of_a_long_image(noise, tmp_path, crop, found):
    image = noise(400, 100, spread=5)
    image.paste((255, 0, 255), (0, 0, 16, 100))
    image.paste((0, 255, 0), (384, 0, 400, 100))
    image.save(tmp_path / "w.png")
    transform = TRANSFORM.showing(crop)
    views = [view(tmp_path / "w.png", epoch=n, transform=transform, flip=False, colour=0.0) for n in range(20)]
    both = [marks(one, (255, 0, 255)) and marks(one, (0, 255, 0)) for one in views]
    assert any(both) is found


def marks(pixels, colour):
    return bool((np.abs(pixels.astype(int) - colour).max(axis=2) < 80).any())


def test_the_bars_of_a_view_are_the_bars_of_evaluation_and_no_mirror_images(photo, tmp_path):
    photo(200, 50).save(tmp_path / "w.png")
    transform = TRANSFORM.showing("border")
    whole = augmentation(transform).resized(tmp_path / "w.png", None)
    assert np.array_equal(whole, load(tmp_path / "w.png", None, transform, Reading()))
    assert (whole[:10] == 128).all()
