"""How the benchmark of several backbones splits images and adds up."""

import numpy as np
import pandas as pd

from bench.eyes import A_CLASS, LISTS, pack_of, text


def images(classes=2, each=30):
    names = [f"{k}-{n}" for k in range(classes) for n in range(each)]
    ids = [f"{n:032x}" for n in range(len(names))]
    return pd.DataFrame({"path": names, "label": [name[0] for name in names], "image_id": ids})


def test_some_images_of_each_class_are_labelled_and_all_others_tested():
    table = images()
    x_ND = np.arange(60 * 5, dtype=np.float32).reshape(60, 5)
    pack = pack_of(table, 20, seed=1, features=(x_ND, [2, 3]))
    counts = pack.index.groupby(["label", "split"]).size()
    assert {split: set(counts[:, split]) for split in ("train", "val", "test")} == {
        "train": {15},
        "val": {5},
        "test": {10},
    }
    assert [pack.only(eye).stored_ND.shape[1] for eye in pack.eyes] == [2, 3]
    assert list(pack.index["image_id"]) == list(table["image_id"])
    assert len(pack_of(table, 20, seed=1, features=(x_ND, [5])).eyes) == 1


def test_the_gain_is_in_points_over_one_backbone_and_the_cost_in_times_of_it():
    first, second = list(LISTS)[:2]
    rows = [
        {"list": name, "labelled": labelled, "seed": seed, "combine": combine, "accuracy": accuracy + 0.02 * seed,
         "log_loss": 0.5}
        for name, combine, accuracy in ((first, "auto", 0.8), (second, "mean", 0.85))
        for seed in (0, 1)
        for labelled in A_CLASS
    ]  # fmt: skip
    table = text({"date": "today", "images": 60, "classes": 2, "rows": rows, "costs": {first: 1.0, second: 3.6}})
    assert f"| {first} |  | 0.8100 | 0.8000 | 0.8200 |  | 0.5000 | 1.0 x |" in table
    assert f"| {second} | mean | 0.8600 | 0.8500 | 0.8700 | +5.0 | 0.5000 | 3.6 x |" in table
