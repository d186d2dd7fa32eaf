import numpy as np
import pytest
from PIL import Image

from graft.tasks.common.augmentation.augment import Augment, named_recipe
from graft.tasks.common.core.files import md5
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.finetune.augmented import VIEWS, augmented_sheet


def of(channels):
    return EvalTransform(48, 48, 0.9, "center", "bicubic", (0.5,) * channels, (0.5,) * channels)


@pytest.fixture
def draw(photo, tmp_path):
    files = []
    for n in range(2):
        photo(90 + n, 70).save(tmp_path / f"{n}.png")
        files.append((tmp_path / f"{n}.png", md5(tmp_path / f"{n}.png"), f"class $_{n}"))

    def sheet(name="sheet.png", channels=3, epochs=9, recipe="strong", images=files):
        transform, reading = of(channels), Reading(channels)
        augment = Augment(transform, named_recipe(recipe, transform, flip=True), 0, reading)
        augmented_sheet(images, augment, transform, reading, epochs, tmp_path / name)
        return tmp_path / name

    return sheet


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_is_a_picture_and_always_the_same(draw, channels):
    first, second = draw("a.png", channels), draw("b.png", channels)
    assert first.read_bytes() == second.read_bytes()
    assert np.asarray(Image.open(first)).std() > 10


def test_images_of_many_bands_are_shown_too(draw, noise, tmp_path):
    np.save(tmp_path / "a.npy", np.dstack([np.asarray(noise(60, 60, seed=c))[..., 0] for c in range(5)]))
    assert Image.open(draw(channels=5, images=[(tmp_path / "a.npy", md5(tmp_path / "a.npy"), "five")])).width > 300


def test_no_more_epochs_are_shown_than_there_are(draw):
    widths = [Image.open(draw(epochs=epochs)).width for epochs in (1, VIEWS, VIEWS + 5)]
    assert widths[0] < widths[1] == widths[2]


def test_another_recipe_is_another_picture(draw):
    assert draw("a.png", recipe="light").read_bytes() != draw("b.png", recipe="strong").read_bytes()
