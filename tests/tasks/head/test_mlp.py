import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch

from graft.tasks.head import mlp
from graft.tasks.head.estimator import check
from graft.tasks.head.mlp import Mlp

RING = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
"""Rows of which no line tells those near the middle from the others."""
NEAR_N = (np.linalg.norm(RING, axis=1) < 1.1).astype(np.int64)


def made(**changes):
    return Mlp(["far", "near"], **{"hidden": 16, "learning_rate": 0.02, "epochs": 30, "dropout": 0.0, **changes})


def test_it_tells_what_no_line_tells():
    assert (made().fit(RING, NEAR_N).predict(RING) == NEAR_N).mean() > 0.95


def test_another_seed_is_another_training():
    one, other = (made(seed=seed).fit(RING, NEAR_N).predict_proba(RING) for seed in (0, 1))
    assert not np.allclose(one, other)


def test_torchs_own_seed_and_threads_stay_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    made(epochs=2).fit(RING, NEAR_N)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_the_number_of_threads_does_not_change_a_bit():
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(made(epochs=3).fit(RING, NEAR_N).head_.weight.tobytes())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_the_head_says_what_the_network_in_training_says():
    examples = check(RING, NEAR_N, None, ["far", "near"], "classification")
    course = mlp._Course(made(), examples)
    course.epoch()
    with torch.no_grad():
        hidden = (course._x_ND @ course._hidden_HD.T + course._hidden_H).relu()
        p_NK = (hidden @ course._out_KH.T + course._out_K).softmax(dim=1).numpy()
    assert np.allclose(course.head().predict_proba(RING), p_NK, atol=1e-5)


def test_dropout_leaves_out_hidden_units_in_training_only():
    examples = check(RING, NEAR_N, None, ["far", "near"], "classification")
    losses = {share: [loss for _, loss in islice(made(dropout=share).train(examples), 30)] for share in (0.0, 0.8)}
    assert losses[0.8][-1] > losses[0.0][-1]
    head = made(dropout=0.8).fit(RING, NEAR_N).head_
    assert np.array_equal(head.predict_proba(RING), head.predict_proba(RING))


def test_weight_decay_makes_weights_smaller():
    large, small = (np.abs(made(weight_decay=decay).fit(RING, NEAR_N).head_.weight).mean() for decay in (0.0, 1.0))
    assert small < large


def test_the_path_has_what_each_number_of_epochs_has_by_itself():
    examples = check(RING, NEAR_N, None, ["far", "near"], "classification")
    fixed, settings = {"hidden": 8, "seed": 3}, {"dropout": 0.5, "weight_decay": 0.01}
    steps = list(mlp.path(["far", "near"], "classification", fixed, settings, 3)(examples, RING[:9]))
    assert [step.settings for step in steps] == [{**settings, "epochs": epoch} for epoch in (1, 2, 3)]
    for step in steps:
        alone = Mlp(["far", "near"], **fixed, **step.settings).fit(RING, NEAR_N)
        assert np.array_equal(step.output, alone.predict_proba(RING[:9]))


def test_the_training_loss_of_numbers_is_in_their_unit():
    y_N = 1000 + 50 * RING[:, 0]
    model = Mlp([], "regression", hidden=16, learning_rate=0.01, dropout=0.0)
    *_, (head, loss) = islice(model.train(check(RING, y_N.astype(float), None, [], "regression")), 60)
    assert loss == pytest.approx(((head.predict(RING) - y_N) ** 2).mean(), rel=0.5, abs=1.0)
    assert loss < 0.02 * y_N.var()


def test_a_head_is_loaded_and_predicts_without_torch(tmp_path, repository):
    made(epochs=1).fit(RING, NEAR_N).head_.save(tmp_path)
    program = (
        "import sys, pathlib\n"
        "import numpy as np\n"
        "import graft.tasks.head.mlp\n"
        "from graft.tasks.common.heads.load import load_head\n"
        "load_head(pathlib.Path(sys.argv[1])).predict(np.zeros((3, 2)))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=repository, check=True)
