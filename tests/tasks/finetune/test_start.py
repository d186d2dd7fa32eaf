import numpy as np
import pandas as pd
import pytest

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.feature_set import FeatureSet
from graft.tasks.common.heads.base import softmax
from graft.tasks.finetune.start import start_head

N, D = 60, 5


def pack_of(label, task, x_ND):
    index = pd.DataFrame(
        {"image_id": [f"{n:032x}" for n in range(len(x_ND))], "label": label, "task": task, "split": "train",
         "weight": 1.0}
    )  # fmt: skip
    return FeatureSet(x_ND, x_ND[:0], index, {})


@pytest.mark.parametrize("images", [60, 4], ids=["more images than features", "fewer images than features"])
def test_of_numbers_the_start_is_the_minimum_of_the_ridge_loss(tmp_path, images):
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(images, D)).astype(np.float32) * [1, 2, 3, 4, 5]
    x_ND = x_ND.astype(np.float32)
    y_N = x_ND @ rng.normal(size=D) + rng.normal(size=images)
    pack = pack_of([f"{y}" for y in y_N], "regression", x_ND)
    head = start_head(pack, np.arange(images), {"estimator": "ridge", "l2": 0.3}, Paths(tmp_path))
    residual_N = head.output(x_ND)[:, 0] - y_N
    deviation_D = x_ND.std(axis=0)
    gradient_D = (x_ND - x_ND.mean(axis=0)).T @ residual_N / images + 0.3 * deviation_D**2 * head.weight[0]
    assert residual_N.mean() == pytest.approx(0, abs=1e-4)
    assert np.allclose(gradient_D, 0, atol=1e-3)


def test_the_start_knows_only_the_rows_that_it_is_given(tmp_path):
    rng = np.random.default_rng(0)
    y_N = np.arange(N) % 2
    x_ND = (rng.normal(size=(N, D)) + y_N[:, None]).astype(np.float32)
    facts = {"estimator": "logistic", "l2": 0.01}
    label = np.where(y_N == 1, "b", "a")
    rows = np.arange(40)
    head = start_head(pack_of(label, "classification", x_ND), rows, facts, Paths(tmp_path))
    x_ND[40:] = 1e3
    again = start_head(pack_of(label, "classification", x_ND), rows, facts, Paths(tmp_path))
    assert np.array_equal(head.weight, again.weight)
    p_NK = softmax(x_ND[:40] @ head.weight.T + head.bias)
    assert (p_NK.argmax(axis=1) == y_N[:40]).mean() > 0.8
