"""Anomaly detection: Graft beside anomalib's PatchCore and PaDiM, with the same pictures and backbone, in one run.

    python -m bench.anomaly --data FOLDER --signs FOLDER --publish
    python -m bench.anomaly --data FOLDER --quick                    a smoke test

`--data` is a folder in MVTec's layout; `--signs` has any small photographs: 300 are taken and 70 of them scratched (see
bench/scratches.py). `make bench-anomaly` makes anomalib's environment first. Without `--publish`, results go to
build/bench. To build a model and to predict with it are processes of their own. All are judged by the same code, on
score maps as large as the network's input.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.metrics import roc_auc_score

from . import report
from .finetune import BACKBONE, weights
from .memory import watched
from .peers.inspection import Job
from .peers.measurements import STARTED
from .processes import BUILD, ROOT, Failed, machine, say, versions
from .scratches import make_scratches

Json = dict[str, Any]

PEERS = ROOT / ".venv-bench-anomaly"
"""The environment of bench/requirements-anomaly.txt."""

GRAFT = "graft"

NAMES = {
    "patchcore": "anomalib's PatchCore",
    "patchcore_1": "anomalib's PatchCore, coreset 1 %",
    "padim": "anomalib's PaDiM",
    GRAFT: "**Graft**",
}

CORESET = {"patchcore": 0.1, "patchcore_1": 0.01}
"""Shares; the first is anomalib's default. These are exported to OpenVINO, too."""

SIZE = 224

LONG = 120
"""Seconds: a model that takes longer to build is built once."""

QUICK = 24
"""Pictures of each kind in a smoke test."""


# ---------------------------------------------------------------- one contestant


def run(job: Job, folder: Path) -> Json:
    """What one process logs, and its peaks and seconds."""
    told, out = folder / "job.json", folder / f"{job.contestant}-{job.what}.json"
    told.write_text(json.dumps(asdict(job)), encoding="utf-8")
    ours = job.contestant == GRAFT
    python = sys.executable if ours else str(PEERS / "bin" / "python")
    module = "bench.anomaly_graft" if ours else "bench.peers.anomalib_model"
    say(f"anomaly: {Path(job.data).name}: {job.what} of {job.contestant}")
    found = watched(
        [python, "-m", module, "--job", str(told), "--out", str(out)], ROOT, folder / f"{job.contestant}.log",
        **{STARTED: repr(time.time()), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return {**found, **json.loads(out.read_text(encoding="utf-8"))}


def judged(job: Job, folder: Path) -> dict[str, float]:
    """Image AUROC, pixel AUROC and AU-PRO of what the contestant has last predicted."""
    with np.load(folder / f"{job.contestant}-predict.npz") as found:
        places = [Path(file).relative_to(Path(job.data) / "test") for file in found["files"].tolist()]
        return scores(places, found["scores"], found["maps"], Path(job.data))


def scores(
    places: list[Path], scores_N: npt.NDArray[np.float64], maps_NHW: npt.NDArray[np.float32], data: Path
) -> dict[str, float]:
    """
    Args:
        places: of the pictures below `test`: a folder a kind.
        data: whose masks count; without any there is only the image AUROC.
    """
    from graft.tasks.common.scoring.pixels import PixelRanking

    defect_N = [place.parts[0] != "good" for place in places]
    found, pixels = {"auroc": float(roc_auc_score(defect_N, scores_N))}, PixelRanking()
    for place, map_HW in zip(places, maps_NHW, strict=True):
        mask_HW = mask_of(place, data, map_HW.shape)
        if mask_HW is not None:
            pixels.add(map_HW, mask_HW)
    auroc, au_pro = pixels.auroc(), pixels.au_pro()
    if auroc and au_pro:
        found |= {"pixel_auroc": auroc.value, "au_pro": au_pro.value}
    return {name: round(value, 4) for name, value in found.items()}


def mask_of(place: Path, data: Path, size: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """True where there is a defect, (H, W); none for a defect without a mask."""
    if place.parts[0] == "good":
        return np.zeros(size, np.bool_)
    file = data / "ground_truth" / place.parent / f"{place.stem}_mask.png"
    if not file.is_file():
        return None
    with Image.open(file) as opened:
        mask = opened.convert("L").point(lambda value: 255 * (value > 0))
    return np.asarray(mask.resize((size[1], size[0]), Image.Resampling.NEAREST)) > 0


# ---------------------------------------------------------------- all of them


def contest(names: list[str], turns: int, job: Job, folder: Path) -> Json:
    """Name -> `build`, `predict` and `openvino` (what each repetition logged) and `quality`.

    All take part in every repetition; who begins moves on by one.
    """
    jobs = {name: _job(job, name, folder) for name in names}
    found: Json = {name: {"build": [], "predict": [], "openvino": []} for name in names}
    for turn in range(turns):
        begin = turn % len(names)
        for name in names[begin:] + names[:begin]:
            if turn == 0 or found[name]["build"][0]["build_seconds"] < LONG:
                shutil.rmtree(jobs[name].model, ignore_errors=True)
                Path(jobs[name].model).mkdir(parents=True)
                found[name]["build"].append(run(jobs[name], folder))
            found[name]["predict"].append(run(_job(job, name, folder, "predict"), folder))
            if name in CORESET:
                found[name]["openvino"].append(run(_job(job, name, folder, "openvino"), folder))
    for name in names:
        found[name]["quality"] = judged(jobs[name], folder)
    return found


def _job(job: Job, name: str, folder: Path, what: str = "build") -> Job:
    own = {"what": what, "contestant": name, "model": str(folder / f"model-{name}")}
    return Job(**{**asdict(job), **own, "coreset": CORESET.get(name, job.coreset)})


def medians(found: Json, images: int) -> Json:
    """One contestant's row."""
    build, predict = found["build"], found["predict"]
    row: Json = {
        **found["quality"],
        "build_seconds": _median(build, "build_seconds"),
        "build_processor_seconds": _median(build, "processor_seconds"),
        "build_peak_mib": max(one["peak_tree_mib"] for one in build),
        "milliseconds": _milliseconds(predict, "passes", images),
        "milliseconds_with_maps": _milliseconds(predict, "map_passes", images),
        "predict_peak_mib": max(one["peak_tree_mib"] for one in predict),
    }
    if found["openvino"]:
        row["milliseconds_openvino"] = _milliseconds(found["openvino"], "map_passes", images)
    row["milliseconds"] = row["milliseconds"] or row["milliseconds_with_maps"]  # of those that always have maps
    return row


def _milliseconds(runs: list[Json], key: str, images: int) -> float:
    """An image, by the last pass of each process; 0 of those that have none."""
    return round(1000 / images * median((one[key] or [0.0])[-1] for one in runs), 3)


def _median(runs: list[Json], key: str) -> float:
    return round(median(one[key] for one in runs), 3)


# ---------------------------------------------------------------- the page


def anomaly_text(results: Json) -> str:
    """All that stands between the markers `anomaly` of the page."""
    machine = results["machine"]
    told = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    parts = [
        "![Seconds to build, milliseconds an image and AUROC, by contestant](../images/bench-anomaly.png)",
        f"{report.machine_text(machine)} Load before the run: {machine['load_before']}.\n"
        f"{results['date']}; medians of up to {results['turns']} repetitions; {told}.",
    ]
    parts += [_table(found) for found in results["sets"].values()]
    return "\n\n".join(parts)


def _table(found: Json) -> str:
    rows = found["medians"]
    ours = rows.get(GRAFT)
    head = [
        f"{found['title']}: {found['train']:,} to learn from, {found['test']:,} to test on",
        "image AUROC", "pixel AUROC", "AU-PRO", "build, s", "Graft is faster by", "ms an image", "Graft is faster by",
        "peak to build, MiB", "to predict, MiB",
    ]  # fmt: skip
    cells = [
        [
            title,
            *(_quality(rows[name].get(key)) for key in ("auroc", "pixel_auroc", "au_pro")),
            f"{rows[name]['build_seconds']:,.1f}",
            _faster(rows[name], ours, "build_seconds"),
            f"{rows[name]['milliseconds']:,.1f}",
            _faster(rows[name], ours, "milliseconds"),
            f"{rows[name]['build_peak_mib']:,.0f}",
            f"{rows[name]['predict_peak_mib']:,.0f}",
        ]
        for name, title in NAMES.items()
        if name in rows
    ]
    return "\n\n".join(filter(None, [report.table(head, cells), _notes(rows)]))


def _quality(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _faster(row: Json, ours: Json | None, key: str) -> str:
    return f"{row[key] / ours[key]:,.1f} x" if ours else ""


def _notes(rows: dict[str, Json]) -> str:
    """What further forms of the same models take."""
    told = [
        f"{NAMES[name]}, exported to OpenVINO, takes {row['milliseconds_openvino']:,.1f} ms an image."
        for name, row in rows.items()
        if "milliseconds_openvino" in row
    ]
    if GRAFT in rows:
        took = rows[GRAFT]["milliseconds_with_maps"]
        told.append(f"With score maps as large as the input, which anomalib always makes, Graft takes {took:,.1f} ms.")
    return "\n".join(told)


# ---------------------------------------------------------------- the run


def main() -> None:
    options = arguments()
    if any(name != GRAFT for name in options.names) and not (PEERS / "bin" / "python").is_file():
        raise Failed(f"{PEERS.name} is not there; `make bench-anomaly` makes it")
    folder = BUILD / "anomaly"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    job, sets = first_job(folder), pictures(options, folder)
    results: Json = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "turns": options.repetitions,
        "sets": {},
    }
    for name, (title, data) in sets.items():
        own = folder / name
        own.mkdir()
        raw = contest(options.names, options.repetitions, Job(**{**asdict(job), "data": str(data)}), own)
        counts = {
            part: len([file for file in (data / part).rglob("*.*") if file.is_file()]) for part in ("train", "test")
        }
        rows = {contestant: medians(found, counts["test"]) for contestant, found in raw.items()}
        results["sets"][name] = {"title": title, **counts, "medians": rows, "raw": raw}
        for found in raw.values():
            results["versions"] |= found["predict"][0]["versions"]
    results["minutes"] = round((time.perf_counter() - started) / 60, 1)
    target = report.Target.published() if options.publish else report.Target.trial(BUILD)
    print(report.write_anomaly(results, anomaly_text(results), target))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder in MVTec's layout")
    parser.add_argument("--signs", type=Path, help="a folder of small photographs; some are scratched")
    parser.add_argument("--names", nargs="+", default=[*NAMES], choices=[*NAMES])
    parser.add_argument("--repetitions", type=int, default=3, help=f"of all but builds of more than {LONG} seconds")
    parser.add_argument("--quick", action="store_true", help="few pictures, one repetition")
    parser.add_argument("--publish", action="store_true", help="write into bench/results and docs")
    options = parser.parse_args()
    if not (options.data or options.signs):
        parser.error("name pictures with --data or --signs")
    if options.quick:
        options.repetitions = 1
    without = {*NAMES} - {*options.names, "patchcore"}
    if options.publish and (options.quick or without or not (options.data and options.signs)):
        parser.error(
            "only a full run is published, but for patchcore, which takes an hour: leave out --publish, or --quick and "
            "--names, and give both folders"
        )
    return options


def first_job(folder: Path) -> Job:
    """Without pictures and a contestant."""
    import timm

    from graft.tasks.common.backbones import network
    from graft.tasks.common.backbones.weights import find_weights

    model = network.create(BACKBONE, find_weights(BACKBONE, "auto", ROOT / "data" / "weights"))
    config = timm.data.resolve_model_data_config(model)
    return Job(
        "build", "", BACKBONE, str(weights(folder)), SIZE, list(config["mean"]), list(config["std"]), data="", model=""
    )


def pictures(options: argparse.Namespace, folder: Path) -> dict[str, tuple[str, Path]]:
    """Name -> (title, folder in MVTec's layout)."""
    found = {}
    if options.data:
        few = fewer(options.data.resolve(), folder / "few") if options.quick else options.data.resolve()
        found["given"] = (options.data.name.replace("-", " ").capitalize(), few)
    if options.signs:
        counts = (QUICK, QUICK, QUICK // 2) if options.quick else ()
        found["scratched"] = ("Scratches", make_scratches(options.signs, folder / "scratches", *counts))
    return found


def fewer(data: Path, out: Path) -> Path:
    """The first pictures of each kind, with their masks."""
    for kind in sorted(path for part in ("train", "test") for path in (data / part).iterdir() if path.is_dir()):
        for file in sorted(kind.iterdir())[:QUICK]:
            target = out / file.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    shutil.copytree(data / "ground_truth", out / "ground_truth")
    return out


if __name__ == "__main__":
    main()
