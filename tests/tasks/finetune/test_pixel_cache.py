from concurrent.futures import ThreadPoolExecutor

import numpy as np

from graft.tasks.finetune.pixel_cache import Decoded


def pictures():
    """Load and the places that it was asked for."""
    asked = []

    def load(i):
        asked.append(i)
        return np.random.default_rng(i).integers(0, 256, (4 + i % 3, 5, 3)).astype(np.uint8)

    return load, asked


def test_an_image_is_loaded_once_and_then_the_same(tmp_path):
    load, asked = pictures()
    decoded = Decoded(load, tmp_path, 10**6)
    for _ in range(3):
        for i in range(6):
            assert np.array_equal(decoded(i), pictures()[0](i))
    assert asked == list(range(6))


def test_images_beyond_the_limit_are_loaded_each_time(tmp_path):
    load, asked = pictures()
    decoded = Decoded(load, tmp_path, 4 * 5 * 3)
    for _ in range(2):
        for i in range(3):
            assert np.array_equal(decoded(i), pictures()[0](i))
    assert asked == [0, 1, 2, 1, 2]


def test_no_limit_at_all_keeps_nothing(tmp_path):
    load, asked = pictures()
    decoded = Decoded(load, tmp_path, 0)
    decoded(0), decoded(0)
    assert asked == [0, 0]


def test_threads_do_not_disturb_each_other(tmp_path):
    load, _ = pictures()
    decoded = Decoded(load, tmp_path, 10**7)
    places = np.random.default_rng(0).integers(0, 50, 2000)
    with ThreadPoolExecutor(8) as pool:
        for i, found in zip(places, pool.map(decoded, map(int, places)), strict=True):
            assert np.array_equal(found, pictures()[0](int(i)))


def test_nothing_is_left_on_the_disk(tmp_path):
    decoded = Decoded(pictures()[0], tmp_path, 10**6)
    decoded(0)
    assert list(tmp_path.iterdir()) == []
