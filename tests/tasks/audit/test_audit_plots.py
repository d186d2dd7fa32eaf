import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.tasks.audit.curve import Curve
from graft.tasks.audit.plots import curve_plot, label_issues_plot, map_plot, outliers_plot, pairs_plot
from graft.tasks.common.images.limits import Limits
from graft.tasks.common.images.reading import Reading


def size(path):
    with Image.open(path) as image:
        return image.size


def points(classes, each=10, **marks):
    rng = np.random.default_rng(0)
    label = np.repeat([f"class {k}" for k in range(classes)], each)
    place = rng.normal(size=(len(label), 2)) + 9 * rng.normal(size=(classes, 2)).repeat(each, axis=0)
    return pd.DataFrame(
        {"x": place[:, 0], "y": place[:, 1], "label": label, "label_issue": False, "outlier": False, **marks}
    )


@pytest.fixture
def curve():
    images = np.array([10.0, 100.0, 1000.0, 2000.0])
    value = 1 - (0.05 + images**-0.5)
    sizes = pd.DataFrame({"images": images, "value": value, "low": value - 0.05, "high": value + 0.03})
    return Curve(sizes.assign(seed=0), sizes, {}, {"reason": ""}, {"a": 0.05, "b": 1.0, "c": 0.5})


@pytest.fixture
def images(tmp_path, noise):
    for n in range(4):
        noise(40, 30, seed=n).save(tmp_path / f"{n}.png")
    return tmp_path


@pytest.mark.parametrize("classes", [1, 2, 12, 100, 130])
def test_a_map_of_any_number_of_classes_is_a_picture_of_one_size(tmp_path, classes):
    map_plot(points(classes), tmp_path / "a.png", numbers=False)
    assert size(tmp_path / "a.png") == (990, 902)


def test_suspected_labels_and_outliers_are_marked(tmp_path):
    plain = points(2)
    for name, table in {"plain": plain, "s": plain.assign(label_issue=True), "o": plain.assign(outlier=True)}.items():
        map_plot(table, tmp_path / f"{name}.png", numbers=False)
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in ("plain", "s", "o")}) == 3


def test_numbers_are_shades(tmp_path):
    map_plot(points(2).assign(label=[str(n / 3) for n in range(20)]), tmp_path / "a.png", numbers=True)
    assert size(tmp_path / "a.png") == (990, 902)


@pytest.mark.parametrize("name", ["$5_$", "", "a|b", "100 % & <x>"])
def test_a_class_may_have_any_name(tmp_path, images, name):
    map_plot(points(2).assign(label=name), tmp_path / "a.png", numbers=False)
    row = {"path": "0.png", "label": name, "suggested": name, "p_suggested": 0.5}
    label_issues_plot(pd.DataFrame([row]), images, tmp_path / "b.png", Reading())
    assert (tmp_path / "a.png").is_file()
    assert (tmp_path / "b.png").is_file()


def test_both_images_of_a_pair_are_shown(tmp_path, images):
    for name, colour in {"0": (255, 0, 255), "1": (0, 255, 255)}.items():
        Image.new("RGB", (50, 50), colour).save(images / f"{name}.png")
    pair = {"path": "0.png", "split": "train", "label": "a", "other_path": "1.png", "other_split": "test"}
    table = pd.DataFrame([{**pair, "other_label": "a", "cosine_pixels": 1.0, "cosine_features": 1.0}])
    pairs_plot(table, "Leaks", images, tmp_path / "a.png", Reading())
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == (255, 0, 255)).all(axis=2).sum() > 1000
    assert (pixels == (0, 255, 255)).all(axis=2).sum() > 1000


def test_outliers_are_shown(tmp_path, images):
    table = pd.DataFrame({"path": ["0.png", "1.png"], "label": "a", "split": "test", "score": [9.0, 4.0]})
    outliers_plot(table, images, tmp_path / "a.png", Reading())
    assert size(tmp_path / "a.png")[0] > size(tmp_path / "a.png")[1]


def test_a_curve_without_a_law_is_drawn_without_one(tmp_path, curve):
    curve_plot(curve, "accuracy", True, tmp_path / "a.png")
    curve_plot(Curve(curve.table, curve.sizes, {}, {"reason": "no"}, {}), "accuracy", True, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_the_same_numbers_give_the_same_bytes(tmp_path, curve):
    for name in ("one", "two"):
        curve_plot(curve, "R²", False, tmp_path / f"{name}.curve.png")
        map_plot(points(3), tmp_path / f"{name}.map.png", numbers=False)
    for kind in ("curve", "map"):
        assert (tmp_path / f"one.{kind}.png").read_bytes() == (tmp_path / f"two.{kind}.png").read_bytes()


def test_an_image_that_is_a_line_and_one_of_four_pixels_are_shown(tmp_path, images):
    Image.new("RGB", (900, 1), (255, 0, 255)).save(images / "0.png")
    Image.new("RGB", (2, 2), (0, 255, 255)).save(images / "1.png")
    rows = [{"path": f"{k}.png", "label": "a", "split": "test", "score": 9.0} for k in range(2)]
    outliers_plot(pd.DataFrame(rows), images, tmp_path / "a.png", Reading(limits=Limits(max_aspect_ratio=1000)))
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == (255, 0, 255)).all(axis=2).sum() == 220
    assert (pixels == (0, 255, 255)).all(axis=2).sum() == 220 * 220
