import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.common.images.reading import Reading
from graft.tasks.evaluate.plots import (
    confusion_plot,
    misclassified_plot,
    precision_recall_plot,
    reliability_plot,
    residuals_plot,
    scatter_plot,
)

BINS = [
    {"bin": 0.75, "images": 4, "confidence": 0.7, "accuracy": 0.75},
    {"bin": 0.95, "images": 9, "confidence": 0.93, "accuracy": 1.0},
]
MATRIX = np.array([[5, 1], [0, 7]])


@pytest.fixture
def examples(tmp_path, noise):
    rows = []
    for n in range(8):
        noise(30 + n, 50, seed=n).save(tmp_path / f"{n}.png")
        rows.append({"path": f"{n}.png", "caption": f"cat\nas dog ({90 - 5 * n}%)"})
    return pd.DataFrame(rows)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_confusion_matrix_is_a_plot(tmp_path):
    confusion_plot(MATRIX, ["cat", "dog"], tmp_path / "a.png")
    assert min(pixels(tmp_path / "a.png").shape[:2]) > 200


def test_other_counts_are_another_plot(tmp_path):
    confusion_plot(MATRIX, ["cat", "dog"], tmp_path / "a.png")
    confusion_plot(MATRIX[::-1], ["cat", "dog"], tmp_path / "b.png")
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_a_class_without_test_images_has_no_warning(tmp_path):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        confusion_plot(np.array([[3, 0], [0, 0]]), ["cat", "dog"], tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


def test_of_many_classes_those_with_the_most_errors_are_drawn(tmp_path):
    matrix = 5 * np.eye(1000, dtype=int)
    matrix[7, 900] = 3
    wrong = matrix.copy()
    wrong[7, 900] = 4
    for name, counts in (("a", matrix), ("b", wrong)):
        confusion_plot(counts, [f"class {k}" for k in range(1000)], tmp_path / f"{name}.png")

    assert max(pixels(tmp_path / "a.png").shape[:2]) < 2000
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


@pytest.mark.parametrize("name", ["$5_$", "a$^$b", "100 % & more", "a_b^c\\d", "<x>"])
def test_a_class_may_have_any_name(tmp_path, examples, name):
    confusion_plot(MATRIX, [name, "dog"], tmp_path / "a.png")
    misclassified_plot(examples.assign(caption=name), tmp_path, tmp_path / "b.png", Reading())
    assert (tmp_path / "a.png").is_file()
    assert (tmp_path / "b.png").is_file()


def test_a_reliability_diagram_is_a_plot(tmp_path):
    reliability_plot(BINS, 0.05, tmp_path / "a.png")
    assert min(pixels(tmp_path / "a.png").shape[:2]) > 200


def test_reliability_before_calibration_is_drawn_beside_that_after(tmp_path):
    reliability_plot(BINS, 0.05, tmp_path / "a.png")
    reliability_plot(BINS, 0.05, tmp_path / "b.png", [{**row, "accuracy": 0.3} for row in BINS])
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_misclassified_examples_show_their_images(tmp_path, examples):
    Image.new("RGB", (50, 50), (255, 0, 255)).save(tmp_path / "0.png")
    misclassified_plot(examples, tmp_path, tmp_path / "a.png", Reading())
    assert (pixels(tmp_path / "a.png") == (255, 0, 255)).all(axis=2).sum() > 1000


def test_a_single_example_has_a_plot(tmp_path, examples):
    misclassified_plot(examples.head(1), tmp_path, tmp_path / "a.png", Reading())
    assert (tmp_path / "a.png").is_file()


def test_without_examples_the_plot_says_so(tmp_path, examples):
    misclassified_plot(examples.head(0), tmp_path, tmp_path / "none.png", Reading())
    misclassified_plot(examples.head(1), tmp_path, tmp_path / "one.png", Reading())
    assert not np.array_equal(pixels(tmp_path / "none.png"), pixels(tmp_path / "one.png"))


@pytest.mark.parametrize("kind", ["confusion", "reliability", "misclassified"])
def test_the_same_data_give_the_same_bytes(tmp_path, examples, kind):
    draw = {
        "confusion": lambda path: confusion_plot(MATRIX, ["cat", "dog"], path),
        "reliability": lambda path: reliability_plot(BINS, 0.05, path),
        "misclassified": lambda path: misclassified_plot(examples, tmp_path, path, Reading()),
    }[kind]
    draw(tmp_path / "one.png")
    draw(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def magenta(path, examples, channels):
    """How many pixels of the sheet are pure magenta."""
    misclassified_plot(examples, path, path / "a.png", Reading(channels))
    return (pixels(path / "a.png") == (255, 0, 255)).all(axis=2).sum()


@pytest.mark.parametrize("bands", [(255, 0, 255), (255, 0, 255, 9, 9), (255, 0, 255, 0)], ids=str)
def test_of_many_bands_the_first_three_are_shown_as_red_green_and_blue(tmp_path, examples, bands):
    np.save(tmp_path / "bands.npy", np.full((50, 50, len(bands)), bands, np.uint8))
    shown = examples.head(1).assign(path="bands.npy")
    assert magenta(tmp_path, shown, len(bands)) > 1000


@pytest.mark.parametrize("bands", [(77,), (77, 200)], ids=str)
def test_of_one_or_two_bands_the_first_is_shown_as_grey(tmp_path, examples, bands):
    np.save(tmp_path / "bands.npy", np.full((50, 50, len(bands)), bands, np.uint8))
    misclassified_plot(examples.head(1).assign(path="bands.npy"), tmp_path, tmp_path / "a.png", Reading(len(bands)))
    assert (pixels(tmp_path / "a.png") == 77).all(axis=2).sum() > 1000


def curves(k):
    recall = np.linspace(0, 1, 9)
    return {f"class $_{n}$": (recall, np.linspace(1, n / k, 9)) for n in range(k)}, {
        f"class $_{n}$": (1 + n / k) / 2 for n in range(k)
    }


@pytest.mark.parametrize("k", [0, 1, 3, 40])
def test_precision_and_recall_are_a_picture_of_any_number_of_classes(tmp_path, k):
    precision_recall_plot(*curves(k), tmp_path / "a.png")
    assert min(pixels(tmp_path / "a.png").shape[:2]) > 200


@pytest.mark.parametrize("n", [1, 3000])
def test_numbers_are_pictures_of_any_number_of_images(tmp_path, n):
    rng = np.random.default_rng(0)
    true_N, error_N = rng.normal(size=n), rng.normal(size=n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scatter_plot(true_N, true_N + error_N, tmp_path / "a.png")
        residuals_plot(error_N, tmp_path / "b.png")
    assert min(pixels(tmp_path / "a.png").shape[:2]) > 200
    assert min(pixels(tmp_path / "b.png").shape[:2]) > 200


@pytest.mark.parametrize("errors", [[0.5, np.nextafter(0.5, 1)], [0.0, 0.0], [1e100, -1e100]])
def test_errors_that_differ_by_rounding_are_a_picture_too(tmp_path, errors):
    residuals_plot(np.array(errors), tmp_path / "a.png")
    assert min(pixels(tmp_path / "a.png").shape[:2]) > 200
