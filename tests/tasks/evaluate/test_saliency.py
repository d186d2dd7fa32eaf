"""Which test images are explained, and what the report says about them."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from graft.tasks.common.candidates import read_candidates
from graft.tasks.common.core.files import read_json, write_json
from graft.tasks.common.data.feature_set import read_feature_set
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.knn import NeighbourHead
from graft.tasks.common.heads.load import load_head
from graft.tasks.common.heads.mlp import MlpHead
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import EvalTransform
from graft.tasks.evaluate.predictions import Predictions
from graft.tasks.evaluate.saliency import Saliency, SaliencyExample, chosen, explain, on_the_whole, shrunk
from graft.tasks.evaluate.saliency_plot import draw_saliency, overlaid

CLASSES = ["ant", "bee", "cat"]


def outcome_of(output, target, labels, classes=CLASSES):
    output = np.array(output, float)
    names = [f"{n}.png" for n in range(len(output))]
    index = pd.DataFrame({"image_id": names, "path": names, "label": labels})
    units = np.arange(len(output))
    return Predictions(index, classes, np.array(target), output, output, Calibration(), 15, Path(), Reading(), units)


def sure(k, p):
    """Probabilities of three classes: `p` of class k."""
    row = np.full(3, (1 - p) / 2)
    row[k] = p
    return row


@pytest.fixture
def classified():
    """Right: 0, 1, 2 (ant), 3 (bee), 4 (cat). Wrong: 5 and 6, said to be bees, 7, said to be a cat."""
    said = [(0, 0.9), (0, 0.99), (0, 0.8), (1, 0.7), (2, 0.95), (1, 0.6), (1, 0.97), (2, 0.9)]
    target = [0, 0, 0, 1, 2, 0, 2, 1]
    return outcome_of([sure(*one) for one in said], target, [CLASSES[k] for k in target])


def numbers(table):
    return [int(path.removesuffix(".png")) for path in table["path"]]


def test_half_are_the_most_confident_errors_and_the_rest_correct_first_of_the_same_classes(classified):
    table = chosen(classified, "classification", 6)
    assert numbers(table) == [6, 7, 5, 3, 4, 1]
    assert list(table["wrong"]) == [True] * 3 + [False] * 3
    assert list(table["output"]) == [1, 2, 1, 1, 2, 0]
    assert list(table["caption"][:4:3]) == ["true cat, predicted bee (0.97)", "true bee, predicted bee (0.70)"]


def test_of_an_odd_number_the_errors_have_one_more(classified):
    assert numbers(chosen(classified, "classification", 3)) == [6, 7, 3]


@pytest.mark.parametrize(("kept", "expected"), [([0, 1, 2, 3, 5], [5, 3, 1, 0]), ([0, 5, 6, 7], [6, 7, 5, 0])])
def test_where_there_are_few_of_the_one_there_are_more_of_the_other(classified, kept, expected):
    few = outcome_of(classified.output[kept], classified.target[kept], list(classified.index["label"].iloc[kept]))
    assert [kept[n] for n in numbers(chosen(few, "classification", 4))] == expected


def test_there_are_no_more_looks_than_images(classified):
    assert sorted(numbers(chosen(classified, "classification", 50))) == list(range(8))


def test_of_several_classes_the_most_probable_is_looked_for():
    output = [[0.9, 0.2, 0.1], [0.3, 0.8, 0.1], [0.2, 0.1, 0.4], [0.1, 0.1, 0.2]]
    target = [[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
    table = chosen(outcome_of(output, target, ["ant|bee", "ant", "cat", ""]), "multilabel", 4)
    assert numbers(table) == [1, 2, 0], "in the last one nothing was found, and rightly so"
    assert list(table["output"]) == [1, 2, 0]
    assert list(table["caption"]) == [
        "true ant\npredicted bee (0.80)",
        "true cat\nat most cat (0.40)",
        "true ant, bee\npredicted ant (0.90)",
    ]


def test_of_numbers_the_largest_errors_and_the_smallest_are_looked_at():
    said, target = [[1.0], [2.5], [3.0], [9.0], [5.25]], [1.5, 2.5, 5.0, 4.0, 5.0]
    table = chosen(outcome_of(said, target, list(map(str, target)), []), "regression", 4)
    assert numbers(table) == [3, 2, 1, 4]
    assert set(table["output"]) == {0}
    assert table["caption"][0] == "true 4, predicted 9"


def test_a_long_name_is_cut(classified):
    long = Predictions(**{**vars(classified), "classes": ["a" * 300, "bee", "cat"]})
    assert max(map(len, chosen(long, "classification", 8)["caption"])) < 100


def page_of(paths):
    return (paths.report / "index.html").read_text(encoding="utf-8")


def test_the_report_shows_the_picture_and_says_what_it_is(finished_paths):
    assert (finished_paths.report / "saliency.png").is_file()
    assert 'alt="Saliency"' in page_of(finished_paths)
    assert "supports the predicted class" in page_of(finished_paths)


def test_none_are_shown_if_none_are_wanted(paths, run_stage):
    run_stage("evaluate", paths, saliency=0)
    assert not (paths.report / "saliency.png").exists()
    assert "Saliency" not in page_of(paths)


def test_weights_that_are_gone_cost_the_maps_and_no_more(paths, run_stage, capsys, tree_bytes):
    run_stage("evaluate", paths, saliency=0)
    without = tree_bytes(paths.report)
    file = paths.features / "fingerprint.json"
    write_json(file, {**read_json(file), "weights": f"file: {paths.weights}/gone.safetensors"})
    run_stage("evaluate", paths)
    assert "evaluate: the report has no Grad-CAM maps: " in capsys.readouterr().err
    assert re.search(r"There are no Grad-CAM maps: .*gone\.safetensors", page_of(paths))
    assert {**tree_bytes(paths.report), "index.html": b""} == {**without, "index.html": b""}


def test_a_head_of_neighbours_has_none_and_the_report_says_why(paths, run_stage):
    features_ND = read_feature_set(paths.features).stored_ND[:8].astype(np.float16)
    head = load_head(paths.head)
    NeighbourHead(features_ND, np.int32([0, 1, 2, 0, 1, 2, 0, 1]), np.ones(8, np.float32), 3, 0.1, head.classes).save(
        paths.head
    )
    run_stage("evaluate", paths)
    assert "There are no Grad-CAM maps: the votes of nearest neighbours" in page_of(paths)


def test_an_mlp_is_looked_through(paths, run_stage):
    head = load_head(paths.head)
    hidden = np.random.default_rng(0).normal(size=(4, head.dimension)).astype(np.float32)
    out = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    MlpHead(hidden, np.zeros(4, np.float32), out, np.zeros(3, np.float32), head.classes).save(paths.head)
    run_stage("evaluate", paths)
    assert 'alt="Saliency"' in page_of(paths)


def looked(paths, name, most=4):
    pack, (candidates, _) = read_feature_set(paths.features), read_candidates(paths)
    test = pack.rows("test")
    output = candidates[name].output(pack, test, paths, "f32")
    index = pack.index.iloc[test][["image_id", "path", "label"]].reset_index(drop=True)
    units = np.arange(len(test))
    outcome = Predictions(
        index, pack.classes, pack.targets(test), output, output, Calibration(), 15, Path(), Reading(), units
    )
    return explain(outcome, candidates[name], pack, paths, most)


def test_a_look_does_not_depend_on_those_beside_it(finished_paths):
    few, many = looked(finished_paths, "head", 4).examples, looked(finished_paths, "head", 12).examples
    known = {one.pixels.tobytes(): one for one in many}
    assert len(few) == 4
    for one in few:
        assert np.allclose(known[one.pixels.tobytes()].map_HW, one.map_HW, atol=1e-4)


@pytest.mark.parametrize("name", ["head", "finetune"])
def test_the_network_looked_into_is_the_candidates_own(tuned_paths, name):
    pack, (candidates, _) = read_feature_set(tuned_paths.features), read_candidates(tuned_paths)
    transform = candidates[name].graphs(pack, tuned_paths)[0].spec.transform
    pixels = np.random.default_rng(0).integers(0, 256, (2, transform.height, transform.width, 3)).astype(np.uint8)
    expected_BD = Engine(candidates[name].graphs(pack, tuned_paths)[0].xml)(pixels)
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
    with torch.no_grad():
        found_BD = candidates[name].networks(pack, tuned_paths)[0](
            (torch.from_numpy(pixels).permute(0, 3, 1, 2) - mean) / std
        )
    assert np.allclose(found_BD.numpy(), expected_BD, rtol=1e-3, atol=1e-4 * np.abs(expected_BD).max())


def test_the_fine_tuned_network_looks_elsewhere_than_the_frozen_one(tuned_paths):
    both = [np.stack([one.map_HW for one in looked(tuned_paths, name, 12).examples]) for name in ("head", "finetune")]
    assert not np.allclose(*both, atol=0.01)


def test_without_the_fine_tuned_weights_there_are_none(tuned_paths, tmp_path):
    paths = type(tuned_paths)(tmp_path / "project")
    shutil.copytree(tuned_paths.root, paths.root)
    (paths.finetune / "network.safetensors").unlink()
    saliency = looked(paths, "finetune")
    assert not saliency.examples
    assert "network.safetensors" in saliency.why_none


@pytest.mark.parametrize("shape", [(40, 60, 1), (40, 60, 3), (60, 40, 5)])
def test_images_of_any_bands_and_shape_are_drawn(tmp_path, shape):
    rng = np.random.default_rng(0)
    seen = tuple(
        SaliencyExample(
            f"true $x, said y (0.{n})",
            n < 4,
            rng.integers(0, 256, shape).astype(np.uint8),
            np.float32(rng.random(shape[:2])),
            rng.random(shape[:2]) > 0.5,
        )
        for n in range(5)
    )
    draw_saliency(Saliency("classification", seen), tmp_path)
    first = (tmp_path / "saliency.png").read_bytes()
    draw_saliency(Saliency("classification", seen), tmp_path)
    assert (tmp_path / "saliency.png").read_bytes() == first


def test_the_hot_place_is_brighter_and_the_cold_one_darker():
    photo_HW3, map_HW = np.full((8, 8, 3), 128, np.uint8), np.zeros((8, 8), np.float32)
    map_HW[:4] = 1
    shown_HW3 = overlaid(photo_HW3, map_HW)
    assert shown_HW3[:4].mean() > 128 > shown_HW3[4:].mean()


# The map in the whole image

OWN = EvalTransform(224, 224, 0.875, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)
MARK = (300, 320, 220, 260)
"""Left, right, top, bottom of a mark in an image of 640 x 480: inside the middle, and not in its centre."""


def marked_map(photo, transform):
    """An image with a mark, and a map that is 1 where the network is shown the mark."""
    image = photo(640, 480).convert("L").point(lambda value: value // 2).convert("RGB")
    left, right, top, bottom = MARK
    image.paste((255, 0, 255), (left, top, right, bottom))
    seen = transform(image).astype(int)
    return image, np.float32((seen[..., 0] > 200) & (seen[..., 1] < 90))


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
def test_the_map_lies_on_what_the_network_was_shown(photo, crop):
    transform = OWN.showing(crop)
    image, map_HW = marked_map(photo, transform)
    pixels, placed_HW, seen_HW = on_the_whole(shrunk((image,), transform), image.size, [map_HW], [transform])
    assert pixels.shape[:2] == placed_HW.shape == seen_HW.shape == (168, 224)
    rows, columns = np.nonzero(placed_HW > 0.5)
    scale, (left, right, top, bottom) = 224 / 640, MARK
    assert (columns.min(), columns.max() + 1) == pytest.approx((left * scale, right * scale), abs=1.5)
    assert (rows.min(), rows.max() + 1) == pytest.approx((top * scale, bottom * scale), abs=1.5)


@pytest.mark.parametrize(("crop", "share"), [("center", 0.574), ("squash", 1.0), ("border", 1.0)])
def test_what_the_network_does_not_see_is_told_from_what_supports_nothing(photo, crop, share):
    transform = OWN.showing(crop)
    shown = shrunk((photo(640, 480),), transform)
    _, placed_HW, seen_HW = on_the_whole(shown, (640, 480), [np.ones((224, 224), np.float32)], [transform])
    assert seen_HW.mean() == pytest.approx(share, abs=0.02)
    assert np.array_equal(placed_HW > 0, seen_HW)
