import json
import sys
import time
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from bench import finetune_graft
from bench.finetune import OURS, PEERS, finetune_text, plan_of, rates_of, seconds_to
from bench.peers.course import STEPS, WARM, Course, Laps, Plan
from bench.peers.measurements import STARTED

EPOCHS = [[10.0, 0.5], [20.0, 0.9], [30.0, 0.8]]


def log(epochs, pure=None, from_files=None):
    seconds = epochs[-1][0] if epochs else 0.0
    return {"seconds": seconds, "epochs": epochs, "pure": pure, "from_files": from_files, "facts": {"epochs": "7"}}


@pytest.mark.parametrize(("accuracy", "seconds"), [(0.4, 10.0), (0.5, 10.0), (0.8, 20.0), (0.95, None)])
def test_the_time_to_an_accuracy_is_that_of_the_first_epoch_that_has_it(accuracy, seconds):
    assert seconds_to(accuracy, EPOCHS) == seconds


def test_rates_are_medians():
    raw = {"a": [log([], pure, pure / 2) for pure in (1.0, 9.0, 2.0)]}
    assert rates_of(raw, "pure") == {"a": 2.0}
    assert rates_of(raw, "from_files") == {"a": 1.0}


@pytest.fixture
def results():
    return {
        "date": "2026-01-01",
        "machine": {
            "processor": "P", "family_model_stepping": "1/2/3", "cores": 2, "flags": ["avx2"], "memory_gib": 8.0,
            "system": "Linux 6", "load_before": 0.1,
        },
        "versions": {"torch": "2"},
        "plan": {"train": 90, "held": 30, "size": 112, "rate_size": 224},
        "rates": {
            "timm_train": [log([], 10.0, 8.0)], "huggingface_trainer": [log([], 8.0, 7.0)],
            "fastai_tune": [log([], 9.0, 6.0)], "all": [log([], 25.0, 24.0)], "last_stage": [log([], 120.0, 100.0)],
        },
        "courses": {
            "timm_train": log([[60.0, 0.7], [120.0, 0.9]]), "huggingface_trainer": log([[240.0, 0.5]]),
            "fastai_tune": log([[300.0, 0.999]]), "all": log([[5.0, 0.6], [60.0, 0.95]]),
            "last_stage": log([[5.0, 0.6], [30.0, 0.94]]),
        },
    }  # fmt: skip


def test_the_text_tells_rates_accuracies_and_the_time_to_each_peers(results):
    told = finetune_text(results)
    assert "Load before the run: 0.1." in told
    assert "| a training step, 224 pixels, 32 images |" in told
    assert "| **Graft, last stage on cached maps** | 100.0 | 12.5 x | 120.0 | 12.0 x |" in told
    assert "| timm's train.py, eager fp32 | 7 | 90.0% | 90.0% | 2.0 |" in told
    assert "| timm's train.py, eager fp32: 90.0% after 2.0 minutes | 1.0 (2.0 x) | 0.5 (4.0 x) |" in told
    assert "| fastai's `fine_tune`: 99.9% after 5.0 minutes | not reached | not reached |" in told


def test_a_part_that_was_not_run_has_no_table(results):
    assert "images/s" not in finetune_text({**results, "rates": {}})
    assert "minutes in all" not in finetune_text({**results, "courses": {}})


def test_rates_without_timms_are_compared_with_nothing(results):
    told = finetune_text({**results, "rates": {"all": results["rates"]["all"]}})
    assert "| **Graft, all layers** | 24.0 |  | 25.0 |  |" in told


def test_a_peer_that_has_no_course_has_no_row(results):
    told = finetune_text({**results, "courses": {name: results["courses"][name] for name in ("timm_train", "all")}})
    assert "Hugging Face" not in told.split("minutes in all")[1]
    assert "| timm's train.py, eager fp32: 90.0% after 2.0 minutes | 1.0 (2.0 x) | not reached |" in told


def test_every_image_is_in_one_part_and_every_class_is_tested(tmp_path, noise_files):
    plan = plan_of(noise_files, 64, tmp_path)
    parts = [{file for file, _ in part} for part in (plan.train, plan.held, plan.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 24
    assert len(plan.held) == round(0.25 * 22)
    assert sorted(code for _, code in plan.test) == [0, 1]
    assert (tmp_path / "weights.safetensors").is_file()
    assert Plan(**json.loads(json.dumps(asdict(plan)))).classes == ["a", "b"]


def test_a_smoke_test_takes_few_images_of_each_class(tmp_path, noise_files):
    plan = plan_of(noise_files, 64, tmp_path, most=5)
    assert Counter(code for part in (plan.train, plan.held, plan.test) for _, code in part) == {0: 5, 1: 5}


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
    course.write(pure=7.0, from_files=6.0, torch="2")
    found = json.loads((tmp_path / "log.json").read_text())
    assert found["epochs"][0] == [1.5, 0.25]
    assert found["epochs"][1][0] > 1e9
    assert (found["pure"], found["from_files"], found["facts"]) == (7.0, 6.0, {"torch": "2"})


def test_as_many_right_is_as_accurate_in_single_precision(tmp_path, monkeypatch):
    monkeypatch.setenv(STARTED, "0")
    course = Course(tmp_path / "log.json")
    course.epoch(7 / 17, 1.0)
    course.epoch(float(np.float32(7 / 17)), 2.0)
    course.write()
    epochs = json.loads((tmp_path / "log.json").read_text())["epochs"]
    assert seconds_to(epochs[1][1], epochs) == 1.0


def test_the_first_steps_are_not_counted(monkeypatch):
    laps = Laps(10, STEPS)
    laps._times = [0.0, *(100.0 * (n + 1) for n in range(WARM)), *(100.0 * WARM + n + 1 for n in range(STEPS))]
    assert laps.enough
    assert laps.rate == pytest.approx(10.0)


def test_every_contestant_is_there():
    assert {*PEERS, *OURS} == {"timm_train", "huggingface_trainer", "fastai_tune", "all", "last_stage"}


@pytest.fixture
def small_plan(tmp_path):
    """A log's place, and a plan of bright and dark images."""
    for name, level in (("bright", 200), ("dark", 40)):
        folder = tmp_path / "labelled" / name
        folder.mkdir(parents=True)
        for n in range(24):
            pixels = np.random.default_rng([level, n]).integers(level - 40, level + 40, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.jpg")
    plan = plan_of(tmp_path / "labelled", 32, tmp_path)
    return replace(plan, steps=1, epochs=1)


def test_graft_takes_part_in_both(small_plan, tmp_path, monkeypatch):
    told = tmp_path / "plan.json"
    told.write_text(json.dumps(asdict(small_plan)))
    monkeypatch.setenv(finetune_graft.LAYERS, "last_stage")
    monkeypatch.setenv(STARTED, repr(time.time()))
    logs = {}
    for what in ("rate", "accuracy"):
        out = tmp_path / f"{what}.json"
        monkeypatch.setattr(sys, "argv", ["graft", "--plan", str(told), "--out", str(out), "--what", what])
        finetune_graft.main()
        logs[what] = json.loads(out.read_text())
    assert logs["rate"]["pure"] > 0
    assert logs["rate"]["from_files"] > 0
    (first, of_head), (last, of_network) = logs["accuracy"]["epochs"]
    assert 0 < first < last <= logs["accuracy"]["seconds"]
    assert of_head == 1.0
    assert round(of_network * len(small_plan.held), 3).is_integer()
    assert logs["accuracy"]["facts"]["epochs"] == "1"
