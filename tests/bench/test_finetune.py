import json
from dataclasses import asdict

import pytest

from bench.finetune import OURS, PEERS, finetune_text, plan_of, rates_of, seconds_to
from bench.peers.course import STEPS, WARM, Course, Laps, Plan
from bench.peers.figures import STARTED

EPOCHS = [[10.0, 0.5], [20.0, 0.9], [30.0, 0.8]]


def log(epochs, rate=None):
    return {"seconds": epochs[-1][0] if epochs else 0.0, "epochs": epochs, "images_per_second": rate, "facts": {}}


@pytest.mark.parametrize(("accuracy", "seconds"), [(0.4, 10.0), (0.5, 10.0), (0.8, 20.0), (0.95, None)])
def test_the_time_to_an_accuracy_is_that_of_the_first_epoch_that_has_it(accuracy, seconds):
    assert seconds_to(accuracy, EPOCHS) == seconds


def test_rates_are_medians():
    assert rates_of({"a": [log([], rate) for rate in (1.0, 9.0, 2.0)]}) == {"a": 2.0}


@pytest.fixture
def results():
    return {
        "date": "2026-01-01",
        "machine": {
            "processor": "P", "family_model_stepping": "1/2/3", "cores": 2, "flags": ["avx2"], "memory_gib": 8.0,
            "system": "Linux 6", "load_before": 0.1,
        },
        "versions": {"torch": "2"},
        "plan": {"train": 90, "held": 30, "size": 112},
        "rates": {
            "timm_train": [log([], 10.0)], "huggingface_trainer": [log([], 8.0)], "fastai_tune": [log([], 9.0)],
            "all": [log([], 25.0)], "last_stage": [log([], 120.0)],
        },
        "courses": {
            "timm_train": log([[60.0, 0.7], [120.0, 0.9]]), "huggingface_trainer": log([[240.0, 0.5]]),
            "fastai_tune": log([[300.0, 0.999]]), "all": log([[5.0, 0.6], [60.0, 0.95]]),
            "last_stage": log([[5.0, 0.6], [30.0, 0.94]]),
        },
    }  # fmt: skip


def test_the_text_tells_rates_accuracies_and_the_time_to_each_peers(results):
    told = finetune_text(results)
    assert "| **Graft, last stage on cached maps** | 120.0 | 12.0 x |" in told
    assert "| timm's train.py, eager fp32 | 90.0% | 90.0% | 2.0 |" in told
    assert "| timm's train.py, eager fp32: 90.0% after 2.0 minutes | 1.0 (2.0 x) | 0.5 (4.0 x) |" in told
    assert "| fastai's `fine_tune`: 99.9% after 5.0 minutes | not reached | not reached |" in told


def test_a_part_that_was_not_run_has_no_table(results):
    assert "images/s" not in finetune_text({**results, "rates": {}})
    assert "minutes in all" not in finetune_text({**results, "courses": {}})


def test_every_image_is_in_one_part_and_every_class_is_tested(tmp_path, noise_files):
    plan = plan_of(noise_files, 64, tmp_path)
    parts = [{file for file, _ in part} for part in (plan.train, plan.held, plan.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 24
    assert len(plan.held) == round(0.25 * 22)
    assert sorted(code for _, code in plan.test) == [0, 1]
    assert (tmp_path / "weights.safetensors").is_file()
    assert Plan(**json.loads(json.dumps(asdict(plan)))).classes == ["a", "b"]


@pytest.fixture
def noise_files(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / "labelled" / name
        folder.mkdir(parents=True)
        for n in range(12):
            (folder / f"{n}.png").write_bytes(b"never opened")
    return tmp_path / "labelled"


def test_a_log_tells_when_and_how_right(tmp_path, monkeypatch):
    monkeypatch.setenv(STARTED, "0")
    course = Course(tmp_path / "log.json")
    course.epoch(0.25, 1.5)
    course.epoch(0.5)
    course.write(7.0, torch="2")
    found = json.loads((tmp_path / "log.json").read_text())
    assert found["epochs"][0] == [1.5, 0.25]
    assert found["epochs"][1][0] > 1e9
    assert (found["images_per_second"], found["facts"]) == (7.0, {"torch": "2"})


def test_the_first_steps_are_not_counted(monkeypatch):
    laps = Laps(10)
    laps._times = [0.0, *(100.0 * (n + 1) for n in range(WARM)), *(100.0 * WARM + n + 1 for n in range(STEPS))]
    assert laps.enough
    assert laps.rate == pytest.approx(10.0)


def test_every_contestant_is_there():
    assert {*PEERS, *OURS} == {"timm_train", "huggingface_trainer", "fastai_tune", "all", "last_stage"}
