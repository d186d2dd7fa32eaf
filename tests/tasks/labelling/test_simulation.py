import json

import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.labelling import simulation as module
from graft.tasks.labelling.simulation import Simulation, in_words, simulate

N = 240
SPLITS = np.array(["train", "train", "train", "val", "test"])[np.arange(N) % 5]


def pack(task="classification", splits=SPLITS, rare=False):
    """Four kinds of images; one is rare."""
    rng = np.random.default_rng(0)
    code_N = rng.choice(4, N, p=[0.4, 0.35, 0.2, 0.05] if rare else None)
    x_ND = (4 * np.eye(4, 12)[code_N] + rng.normal(size=(N, 12))).astype(np.float32)
    labels = {
        "classification": np.array(list("abcd"))[code_N],
        "multilabel": np.array(["a", "a|b", "c", "b|c"])[code_N],
        "regression": (x_ND[:, 0] + code_N).astype(str),
        "anomaly": np.where(code_N == 3, "scratch", "good"),
    }[task]
    ids = [f"{i:032x}" for i in range(N)]
    index = pd.DataFrame({"image_id": ids, "path": ids, "label": labels, "task": task, "split": splits, "group": None})
    index = index.assign(weight=1.0, pixels=ids)
    if task == "regression":
        index["label"] = index["label"].astype(float)
    return FeatureSet(x_ND, np.zeros((0, 12), np.float32), index, {"digest": "d"})


def units(count=N):
    return np.arange(count)


@pytest.fixture(scope="module")
def found():
    return simulate(pack(rare=True), units())


def test_both_orders_are_replayed_up_to_half_of_the_training_images(found):
    assert found.reason == ""
    assert found.sizes == sorted(found.sizes)
    assert found.sizes[-1] == found.labels // 2 == 72
    assert len(found.auto) == len(found.random) == len(found.sizes)
    assert all(0 <= value <= 1 for value in found.auto + found.random)


def test_the_first_typical_images_find_more_kinds_than_random_ones(found):
    assert found.auto[0] > found.random[0]
    assert found.ahead == pytest.approx(np.mean(found.auto) - np.mean(found.random))
    assert found.low <= found.ahead <= found.high
    assert found.better


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_labels_are_replayed_too(task):
    found = simulate(pack(task), units())
    assert found.reason == ""
    assert found.auto[-1] > found.auto[0]


def test_test_images_are_not_used():
    whole = pack()
    other = np.where(whole.index["split"] == "test", "d", whole.index["label"])
    changed = FeatureSet(whole.stored_ND, whole.views_VD, whole.index.assign(label=other), whole.fingerprint)
    assert simulate(changed, units()) == simulate(whole, units())


@pytest.mark.parametrize(
    ("task", "splits", "reason"),
    [
        ("anomaly", SPLITS, "task anomaly"),
        ("classification", np.where(SPLITS == "val", "test", SPLITS), "0 validation images"),
        ("classification", np.where(np.arange(N) < 40, SPLITS, "val"), "24 training images"),
    ],
)
def test_where_there_is_none_it_says_why_and_auto_is_used(task, splits, reason):
    found = simulate(pack(task, splits), units())
    assert reason in found.reason
    assert found.better
    assert found.more(100) is None
    assert reason in in_words(found, 100)


def test_many_images_are_bounded_by_whole_units():
    unit_N = np.arange(100) // 5
    rows = module._some(np.arange(100), unit_N, 22, np.random.default_rng(0))
    assert len(rows) == 22
    assert len(np.unique(unit_N[rows])) == 5


def law(better):
    one = [[0.05, 2.0, 0.5]] * 20
    return Simulation(
        "classification",
        400,
        [10, 20],
        [0.5, 0.6],
        [0.4, 0.5],
        0.1 if better else -0.1,
        laws={"auto": one, "random": one},
    )


def test_more_labels_bring_what_the_law_says():
    gain = law(True).more(100)
    assert gain is not None
    assert gain.gain == pytest.approx(2 * (400**-0.5 - 500**-0.5))
    assert gain.low == pytest.approx(gain.gain) == gain.high


def test_the_forecast_says_how_the_images_are_chosen():
    words = "with 100 more labels, about +1.1 points of accuracy (+1.1 to +1.1); "
    assert in_words(law(True), 100) == words + "chosen, not random"
    assert in_words(law(False), 100) == words + "at random"


def test_it_is_the_same_from_json(found):
    assert Simulation(**json.loads(json.dumps(found.facts()))) == found
