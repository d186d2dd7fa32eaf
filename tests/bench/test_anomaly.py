import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import anomaly
from bench.anomaly import LONG, NAMES, anomaly_text, contest, fewer, mask_of, medians, scores
from bench.peers.inspection import Job, Log
from bench.peers.measurements import STARTED

JOB = Job("build", "", "net", "weights", 224, [0.5], [0.5], "data", "")


@pytest.fixture
def data(tmp_path):
    """A picture a kind, 8 x 4; the left half of the crack is one."""
    for kind in ("train/good", "test/good", "test/crack", "test/dent"):
        folder = tmp_path / "data" / kind
        folder.mkdir(parents=True)
        for n in range(3):
            Image.new("RGB", (8, 4)).save(folder / f"{n}.png")
    mask_HW = np.zeros((4, 8), np.uint8)
    mask_HW[:, :4] = 255
    masks = tmp_path / "data" / "ground_truth" / "crack"
    masks.mkdir(parents=True)
    Image.fromarray(mask_HW).save(masks / "0_mask.png")
    return tmp_path / "data"


def test_masks_are_as_large_as_the_maps(data):
    mask_HW = mask_of(Path("crack/0.png"), data, (6, 6))
    assert mask_HW.dtype == bool
    assert mask_HW.tolist() == [[True] * 3 + [False] * 3] * 6
    assert not mask_of(Path("good/0.png"), data, (6, 6)).any()
    assert mask_of(Path("dent/0.png"), data, (6, 6)) is None


def test_maps_that_say_where_the_defect_is_are_right(data):
    places = [Path("good/0.png"), Path("crack/0.png"), Path("dent/0.png")]
    maps_NHW = np.zeros((3, 6, 6), np.float32)
    maps_NHW[1, :, :3] = 1
    found = scores(places, np.array([0.0, 1.0, 2.0]), maps_NHW, data)
    assert found == {"auroc": 1.0, "pixel_auroc": 1.0, "au_pro": pytest.approx(1.0)}


def test_without_masks_only_images_are_judged(data):
    places = [Path("good/0.png"), Path("dent/0.png"), Path("dent/1.png")]
    found = scores(places, np.array([1.0, 0.0, 2.0]), np.zeros((3, 6, 6), np.float32), data)
    assert found == {"auroc": 0.5}


def test_a_smoke_test_takes_few_pictures_of_each_kind(data, tmp_path, monkeypatch):
    monkeypatch.setattr(anomaly, "QUICK", 2)
    few = fewer(data, tmp_path / "few")
    counts = {kind: len(list((few / kind).iterdir())) for kind in ("train/good", "test/good", "test/crack")}
    assert counts == {"train/good": 2, "test/good": 2, "test/crack": 2}
    assert (few / "ground_truth" / "crack" / "0_mask.png").is_file()


def process(build, passes=(), map_passes=(), peak=100.0):
    return {
        "build_seconds": build, "processor_seconds": 2 * build, "passes": list(passes), "map_passes": list(map_passes),
        "peak_tree_mib": peak,
    }  # fmt: skip


@pytest.fixture
def raw():
    predict = [process(0, [9.0, 1.0], [9.0, 2.0]), process(0, [9.0, 3.0], [9.0, 4.0], peak=200.0)]
    return {"build": [process(10.0), process(20.0)], "predict": predict, "openvino": [], "quality": {"auroc": 0.9}}


def test_the_last_pass_of_each_process_counts(raw):
    row = medians(raw, images=100)
    assert (row["milliseconds"], row["milliseconds_with_maps"]) == (20.0, 30.0)
    assert (row["build_seconds"], row["build_processor_seconds"], row["predict_peak_mib"]) == (15.0, 30.0, 200.0)


def test_who_always_makes_maps_is_measured_with_them(raw):
    for one in raw["predict"]:
        one["passes"] = []
    assert medians(raw, images=100)["milliseconds"] == 30.0


def test_long_builds_are_made_once_and_who_begins_moves_on(tmp_path, monkeypatch):
    order = []

    def run(job, folder):
        order.append((job.contestant, job.what, job.coreset))
        return process(LONG if job.contestant == "patchcore" else 1.0)

    monkeypatch.setattr(anomaly, "run", run)
    monkeypatch.setattr(anomaly, "judged", lambda job, folder: {"auroc": 1.0})
    found = contest(["patchcore", "graft"], 2, JOB, tmp_path)
    assert [len(found[name]["build"]) for name in ("patchcore", "graft")] == [1, 2]
    assert [len(found[name]["predict"]) for name in ("patchcore", "graft")] == [2, 2]
    assert [name for name, what, _ in order if what == "predict"] == ["patchcore", "graft", "graft", "patchcore"]
    assert order[:3] == [("patchcore", what, 0.1) for what in ("build", "predict", "openvino")]
    assert not found["graft"]["openvino"]


@pytest.fixture
def results(raw):
    peer = {
        **raw,
        "build": [process(300.0)],
        "predict": [process(0, [], [9.0, 10.0])],
        "openvino": [process(0, [], [9.0, 5.0])],
    }
    rows = {
        "patchcore": {**medians(peer, 100), "auroc": 0.95, "pixel_auroc": 0.97, "au_pro": 0.91},
        "graft": medians(raw, 100),
    }
    return {
        "date": "2026-01-01",
        "machine": {
            "processor": "P", "family_model_stepping": "1/2/3", "cores": 2, "flags": ["avx2"], "memory_gib": 8.0,
            "system": "Linux 6", "load_before": 0.1,
        },
        "versions": {"torch": "2", "anomalib": "2.7.0"},
        "turns": 3,
        "sets": {"given": {"title": "Tiles", "train": 300, "test": 100, "medians": rows}},
    }  # fmt: skip


def test_the_text_compares_each_with_graft(results):
    told = anomaly_text(results)
    assert "anomalib 2.7.0" in told
    assert "| Tiles: 300 to learn from, 100 to test on |" in told
    assert "| anomalib's PatchCore | 0.950 | 0.970 | 0.910 | 300.0 | 20.0 x | 100.0 | 5.0 x | 100 | 100 |" in told
    assert "| **Graft** | 0.900 |  |  | 15.0 | 1.0 x | 20.0 | 1.0 x | 100 | 200 |" in told
    assert "Graft takes 30.0 ms." in told
    assert "anomalib's PatchCore, exported to OpenVINO, takes 50.0 ms an image." in told


def test_without_graft_nothing_is_compared(results):
    del results["sets"]["given"]["medians"]["graft"]
    assert "| anomalib's PatchCore | 0.950 | 0.970 | 0.910 | 300.0 |  | 100.0 |  |" in anomaly_text(results)


def test_the_plot_has_every_contestant(results, tmp_path):
    from bench.plots import CONTESTANTS, plot_anomaly

    assert list(CONTESTANTS) == list(NAMES)
    plot_anomaly(results, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 1000


def test_a_log_has_seconds_scores_and_maps(tmp_path, monkeypatch):
    monkeypatch.setenv(STARTED, repr(time.time() - 5))
    log = Log(tmp_path / "log.json")
    log.built()
    log.passed(2.0, maps=False)
    log.passed(3.0)
    log.scores(["a.png"], np.array([0.5]), np.ones((1, 2, 2)))
    log.write(anomalib="2")
    found = json.loads((tmp_path / "log.json").read_text())
    assert 5 <= found["build_seconds"] < 60
    assert (found["passes"], found["map_passes"], found["versions"]) == ([2.0], [3.0], {"anomalib": "2"})
    with np.load(tmp_path / "log.npz") as arrays:
        assert arrays["maps"].shape == (1, 2, 2)
    assert Job(**json.loads(json.dumps(asdict(JOB)))) == JOB
