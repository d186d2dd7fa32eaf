"""register: the chosen candidate as a package that predicts, alone, what evaluate saw."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.candidates import Candidate, read_candidates
from ..common.core.errors import GraftError
from ..common.core.files import whole_folder
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.record import Record
from ..common.data.feature_set import FeatureSet, read_feature_set
from ..common.heads.knn import NeighbourHead
from .knn_tolerance import bounds
from .package import write_package
from .params import RegisterParams
from .reference_sample import write_reference
from .serving import predicts

Floats = npt.NDArray[np.float64]

EXACT, ROUNDED, ROUNDED_NUMBER = 1e-4, 2e-2, 1e-1
"""The largest difference of a probability between the package and evaluate: where both computed in fp32 with OpenVINO
(then it is 0 on one machine), and where bf16, another engine or features kept in half precision come between. Numbers
are compared in units of their standard deviation among the training images; they have no bounds, and more tolerance."""

COSINE_EXACT, COSINE_ROUNDED, COSINE_BF16 = 1e-5, 1e-4, 3e-2
"""By how much a cosine of two images' features may differ by what came between: for a nearest neighbours' head, whose
answers jump where neighbours are as near. Of 200 images of clothes by EfficientNet-Lite0, bf16 made 2.8e-2 of
difference at most, and to keep features in half precision 3.7e-5."""


def run(params: RegisterParams, paths: Paths) -> Record:
    """Packs the candidate and has a fresh process, which sees nothing but the package, predict test images.

    Raises:
        GraftError: the package disagrees with evaluate.
    """
    pack = read_feature_set(paths.features)
    candidates, chosen = read_candidates(paths)
    graph, calibration = candidates[chosen].graph(pack, paths), candidates[chosen].calibration
    facts: dict[str, Any] = {
        "name": params.name,
        "task": pack.task,
        "predicts": predicts(pack.task, calibration),
        "candidate": chosen,
        "classes": pack.classes,
        "backbone": graph.spec.backbone,
        "weights": graph.spec.weights,
        "weights_sha256": graph.spec.weights_sha256,
        "fingerprint": pack.fingerprint["digest"],
        "precision": pack.precision,
        "transform": asdict(graph.spec.transform),
        **calibration.promise(),
    }
    with whole_folder(paths.package) as folder:
        write_package(folder, graph, candidates[chosen].head, calibration, facts)
        write_reference(folder, pack, paths.raw, tuned=candidates[chosen].tuned is not None)
        expected = pd.read_parquet(paths.report / "predictions.parquet").head(params.smoke_images)
        seen = predict_in_fresh_process(folder, [str(paths.raw / path) for path in expected["path"]])
        difference = _compare(seen, expected, candidates[chosen], pack)
    size = sum(file.stat().st_size for file in paths.package.rglob("*") if file.is_file())
    say(f"register: the package agrees with evaluate on {len(expected)} images (largest difference {difference:.1e})")
    metrics = {"smoke_images": len(expected), "largest_difference": difference, "package_megabytes": size / 1e6}
    return Record(
        metrics=metrics,
        facts={"candidate": chosen, "backbone": graph.spec.backbone},
        files=[paths.package / "package.json"],
    )


def _is_exact(pack: FeatureSet) -> bool:
    made = {key: pack.fingerprint[key] for key in ("engine", "precision", "dtype")}
    return made == {"engine": "openvino", "precision": "f32", "dtype": "float32"}


def _tolerance(pack: FeatureSet) -> float:
    if _is_exact(pack):
        return EXACT
    return ROUNDED_NUMBER if pack.task == "regression" else ROUNDED


def _leeway(candidate: Candidate, pack: FeatureSet, images: int) -> Floats:
    """By how much more than rounding the package may differ on the first test images, (N, K)."""
    if not isinstance(candidate.head, NeighbourHead):
        return np.zeros((images, max(1, len(pack.classes))))
    off = COSINE_BF16 if pack.precision == "bf16" else COSINE_EXACT if _is_exact(pack) else COSINE_ROUNDED
    features_ND = pack.features(pack.rows("test")[:images])
    low_NK, high_NK = bounds(candidate.head, candidate.calibration, features_ND, off)
    return high_NK - low_NK


def predict_in_fresh_process(folder: Path, images: list[str]) -> pd.DataFrame:
    """Predictions by the package's own code, in a process that cannot import this project."""
    code = next(path.name for path in (folder / "code").iterdir())
    program = (
        "import json, sys, pathlib\n"
        "sys.modules |= {'tasks': None, 'flows': None}\n"  # an editable install would have them found
        f"from {code}.register.serving import ImageClassifier\n"
        "model = ImageClassifier(pathlib.Path(sys.argv[1]))\n"
        "print(json.dumps(model.predict([pathlib.Path(name) for name in json.load(sys.stdin)])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(folder.resolve())],
        input=json.dumps([str(Path(image).resolve()) for image in images]),
        capture_output=True,
        text=True,
        cwd=folder / "code",
    )
    if done.returncode:
        raise GraftError(
            "the packaged model does not predict in a process of its own",
            got=(done.stderr.strip() or "no message").splitlines()[-1],
            todo="run the stage again; if it stays so, report it with this message",
        )
    return pd.DataFrame(json.loads(done.stdout.splitlines()[-1]))


def _compare(seen: pd.DataFrame, expected: pd.DataFrame, candidate: Candidate, pack: FeatureSet) -> float:
    """The largest difference between what the package says and what evaluate saw."""
    leeway_NK, unit = _leeway(candidate, pack, len(expected)), 1.0
    if pack.task == "regression":
        what, unit = "a number that differs by {} standard deviations", float(pack.targets(pack.rows("train")).std())
        off_NK = (seen[["value"]].to_numpy() - expected[["predicted"]].to_numpy()) / unit
    else:
        what = "a probability that differs by {}"
        p_seen = np.array([[row[name] for name in pack.classes] for row in seen["probabilities"]])
        off_NK = p_seen - expected[[f"p_{name}" for name in pack.classes]].to_numpy()
    difference_NK, allowed_NK = np.abs(off_NK), _tolerance(pack) + leeway_NK / unit
    worst = np.unravel_index((difference_NK - allowed_NK).argmax(), difference_NK.shape)
    if difference_NK[worst] > allowed_NK[worst]:
        raise GraftError(
            "the packaged model does not predict what evaluate saw",
            got=f"{what.format(f'{difference_NK[worst]:.2g}')}, on {expected['path'].iloc[worst[0]]}",
            allowed=f"at most {allowed_NK[worst]:.2g}",
            todo="run `dvc repro --force evaluate register`; if it stays so, report it",
        )
    return float(difference_NK.max())
