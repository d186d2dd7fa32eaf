import shutil

import numpy as np
import pytest
from shared_training import learn, learn_together

CASES = {
    "as by default": {},
    "statistics of batch norm": {"batch_norm": "running"},
    "statistics in parts": {"batch_norm": "running", "accumulate": 2, "batch_size": 9, "ema": 0, "cutmix": 1.0},
    "mixed": {"mixup": 0.4, "cutmix": 1.0, "clip_norm": 0.05},
    "fewer images than a step": {"batch_size": 64, "optimizer": "sgd", "unfreeze": "gradual"},
    "stopped": {"batch_norm": "running", "mixup": 0.4, "checkpoint_every": 1e-9, "stop": 1},
}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """(the folder of their checkpoints, what two processes have found in each case)."""
    folder = tmp_path_factory.mktemp("together")
    return folder, learn_together(folder, CASES)


def close(one, two):
    assert len(one["losses"]) == len(two["losses"]) > 0
    assert np.allclose(one["losses"], two["losses"], rtol=1e-4, atol=0)
    for row, other in zip(one["rows"], two["rows"], strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    assert np.allclose(one["weights"], two["weights"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_every_step_has_the_same_loss_in_one_process_and_in_two(tmp_path, together, case):
    close(learn(tmp_path, case, **CASES[case]), together[1][case])


def test_one_process_goes_on_where_two_have_stopped(tmp_path, together):
    settings = {key: value for key, value in CASES["stopped"].items() if key != "stop"}
    whole = learn(tmp_path, "whole", **settings)
    shutil.copy(together[0] / "stopped.safetensors", tmp_path / "rest.safetensors")
    rest = learn(tmp_path, "rest", **settings)
    first = together[1]["stopped"]["losses"]
    close(whole, {**rest, "losses": first + rest["losses"]})


def test_random_numbers_of_an_image_do_not_depend_on_the_parts_of_its_step(tmp_path):
    whole, parts = (learn(tmp_path, f"{n}", accumulate=n) for n in (1, 3))
    close(whole, parts)
    assert whole["losses"] != learn(tmp_path, "another", seed=1)["losses"]
