from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tasks.common.augment import Augment
from tasks.common.images import EvalTransform

TRANSFORM = EvalTransform(48, 48, 0.9, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def file(photo, tmp_path):
    photo(120, 90).save(tmp_path / "a.png")
    return tmp_path / "a.png"


RECIPE = {"crop_scale": 0.6, "flip": True, "colour": 0.2, "seed": 0}


def augmentation(transform=TRANSFORM, **changes):
    return Augment(transform, **{**RECIPE, **changes})


def view(file, image_id=IMAGE_ID, epoch=0, transform=TRANSFORM, **changes):
    return augmentation(transform, **changes)(file, image_id, epoch)


def test_the_same_image_epoch_and_seed_give_the_same_pixels(file):
    assert np.array_equal(view(file), view(file))


def test_one_object_gives_the_same_pixels_again_whatever_it_was_asked_between(file):
    augment = augmentation(TRANSFORM)
    first = augment(file, IMAGE_ID, 0)
    augment(file, IMAGE_ID, 1)
    assert np.array_equal(augment(file, IMAGE_ID, 0), first)


def test_another_epoch_gives_other_pixels(file):
    assert not np.array_equal(view(file, epoch=0), view(file, epoch=1))


def test_another_seed_gives_other_pixels(file):
    assert not np.array_equal(view(file, seed=0), view(file, seed=1))


def test_another_image_is_seen_another_way(file):
    assert not np.array_equal(view(file), view(file, image_id="f" * 32))


def test_threads_change_nothing(file):
    augment = augmentation(TRANSFORM)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda epoch: augment(file, IMAGE_ID, epoch), range(24)))
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
