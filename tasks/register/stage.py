"""register: the chosen candidate as a package that predicts by itself the same as evaluate."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.backbones.graph import Graph
from ..common.candidates import Candidate, read_candidates
from ..common.core.errors import GraftError
from ..common.core.files import whole_folder
from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.core.record import Record
from ..common.data.eyes import Fingerprint, backbones
from ..common.data.feature_set import FeatureSet, precision_of, read_feature_set
from ..common.engines.openvino import Features
from ..common.heads.base import Head, unit_length
from ..common.heads.knn import NeighbourHead
from ..common.heads.mean import MeanHead
from ..common.maps.maps import open_maps
from .package import graph_names, write_package
from .params import RegisterParams
from .reference_sample import write_reference
from .serving import ANOMALY, RECONSTRUCTION, TYPICALITY, predicts

EXACT, ROUNDED, ROUNDED_NUMBER = 1e-4, 2e-2, 1e-1
"""The largest difference of a probability between the package and evaluate: if both used fp32 and OpenVINO (on one
machine it is then 0), and if bf16, another engine or features in half precision come between. Numbers are compared in
units of their standard deviation among the training images; they have no bounds, and more tolerance."""

SAME_EXACT, SAME_ROUNDED, SAME_BF16 = 1e-6, 1e-5, 1e-3
"""The largest 1 - cosine of the features of one image from the package and from the feature set, in the same cases: for
a head of nearest neighbours, whose output jumps where rounding decides which neighbour is nearer. The engine accepts
bf16 with the same bound."""


TINY = 1e-12
"""What a threshold of 0 counts as: of images that are all alike, each has the score 0."""

REPEAT = "run `dvc repro --force evaluate register`; if it fails again, report it"


def run(params: RegisterParams, paths: Paths) -> Record:
    """Packages the candidate, and compares its predictions in a fresh process, which has only the package, with those
    of evaluate.

    Raises:
        GraftError: they differ.
    """
    pack = read_feature_set(paths.features)
    candidates, chosen = read_candidates(paths)
    parts, calibration = _parts(candidates[chosen], pack, paths), candidates[chosen].calibration
    graphs = [graph for graph, _ in parts]
    backbone = backbones(pack.fingerprint)
    facts: dict[str, Any] = {
        "name": params.name,
        "task": pack.task,
        "predicts": [*predicts(pack.task, calibration), *([] if pack.task == ANOMALY else [TYPICALITY])],
        "candidate": chosen,
        "refitted": candidates[chosen].refitted,
        "classes": candidates[chosen].head.classes,
        "backbone": backbone,
        "weights": ", ".join(dict.fromkeys(graph.spec.weights for graph in graphs)),
        "weights_sha256": ", ".join(dict.fromkeys(graph.spec.weights_sha256 for graph in graphs)),
        "fingerprint": (pack.maps_fingerprint or pack.fingerprint)["digest"],
        "reading": pack.reading.as_dict(),
        **_inputs(parts),
        **({"maps": pack.maps_fingerprint["maps"]} if pack.maps_fingerprint else {}),
        **calibration.promise(),
    }
    with whole_folder(paths.package) as folder:
        write_package(folder, graphs, candidates[chosen].head, calibration, facts)
        tuned, refitted = candidates[chosen].tuned is not None, candidates[chosen].refitted
        write_reference(folder, pack, paths, tuned=tuned, refitted=refitted)
        expected = pd.read_parquet(paths.report / "predictions.parquet").head(params.smoke_images)
        files = [str(paths.raw / path) for path in expected["path"]]
        difference = _check(folder, files, expected, candidates[chosen], pack)
    size = sum(file.stat().st_size for file in paths.package.rglob("*") if file.is_file())
    say(f"register: the package agrees with evaluate on {len(expected)} images (largest difference {difference:.1e})")
    metrics = {"smoke_images": len(expected), "largest_difference": difference, "package_megabytes": size / 1e6}
    return Record(
        metrics=metrics,
        facts={"candidate": chosen, "backbone": backbone},
        files=[paths.package / "package.json"],
    )


Part = tuple[Graph, Fingerprint]
"""A graph of the package, and what computed the same features in the feature set."""


def _parts(candidate: Candidate, pack: FeatureSet, paths: Paths) -> list[Part]:
    if pack.maps_fingerprint is not None:
        return [(open_maps(pack, paths).graph, pack.maps_fingerprint)]
    return list(zip(candidate.graphs(pack, paths), (eye.fingerprint for eye in pack.eyes), strict=True))


def _inputs(parts: Sequence[Part]) -> dict[str, Any]:
    """What the package needs to run its graphs: of one `precision` and `transform`, of several `eyes` with these."""
    each = [
        {"precision": precision_of(fingerprint), "transform": asdict(graph.spec.transform)}
        for graph, fingerprint in parts
    ]
    if len(parts) == 1:
        return each[0]
    eyes = [
        {
            "graph": name,
            "backbone": graph.spec.backbone,
            "weights": graph.spec.weights,
            "weights_sha256": graph.spec.weights_sha256,
            "dimension": graph.spec.dimension,
            "fingerprint": fingerprint["digest"],
            **one,
        }
        for name, (graph, fingerprint), one in zip(graph_names(len(parts)), parts, each, strict=True)
    ]
    return {"eyes": eyes}


def _is_exact(pack: FeatureSet) -> bool:
    exact = {"engine": "openvino", "precision": "f32"}
    if pack.maps_fingerprint is not None:  # the package rounds maps to half precision as the cache does
        return {key: pack.maps_fingerprint[key] for key in exact} == exact
    exact |= {"dtype": "float32"}
    return all({key: eye.fingerprint[key] for key in exact} == exact for eye in pack.eyes)


def _votes(head: Head) -> bool:
    """Whether neighbours vote in it, or in a part of it."""
    return isinstance(head, NeighbourHead) or (isinstance(head, MeanHead) and any(map(_votes, head.parts)))


def _tolerance(pack: FeatureSet) -> float:
    if _is_exact(pack):
        return EXACT
    return ROUNDED_NUMBER if pack.task == "regression" else ROUNDED


def _deviation(pack: FeatureSet) -> float:
    """Of the numbers of the training images; 1 if they are all equal."""
    return float(pack.targets(pack.rows("train")).std()) or 1.0


def _check(folder: Path, files: list[str], expected: pd.DataFrame, candidate: Candidate, pack: FeatureSet) -> float:
    """The largest difference between the predictions of the package and those of evaluate.

    For nearest neighbours in two steps, since rounding may decide between two that are as near: the package computes
    the features of the feature set, and from these exactly the predictions of evaluate.
    """
    if not _votes(candidate.head):
        predictions, _ = predict_in_fresh_process(folder, files)
        return _compare(predictions, expected, pack, _tolerance(pack), candidate.calibration.threshold)
    features_ND = pack.features(pack.rows("test")[: len(files)])
    predictions, found_ND = predict_in_fresh_process(folder, files, features_ND)
    _compare_features(found_ND, features_ND, expected, pack)
    return _compare(predictions, expected, pack, EXACT)


def _compare_features(found_ND: Features, features_ND: Features, expected: pd.DataFrame, pack: FeatureSet) -> None:
    off_N = 1 - (unit_length(found_ND).astype(np.float64) * unit_length(features_ND)).sum(axis=1)
    allowed = SAME_BF16 if pack.precision == "bf16" else SAME_EXACT if _is_exact(pack) else SAME_ROUNDED
    what = "the packaged model does not compute the features that evaluate used"
    _largest(off_N, allowed, what, "1 - cosine {} for {}", expected)


def _largest(off_N: npt.NDArray[Any], allowed: float, what: str, got: str, expected: pd.DataFrame) -> float:
    """The largest difference.

    Args:
        got: for the message, with places for the difference and the path of its image.

    Raises:
        GraftError: it is not at most `allowed`, or not a number.
    """
    worst = int(off_N.argmax())
    if not off_N[worst] <= allowed:  # nor nan
        raise GraftError(
            what,
            got=got.format(f"{off_N[worst]:.2g}", expected["path"].iloc[worst]),
            allowed=f"at most {allowed:g}",
            todo=REPEAT,
        )
    return float(off_N[worst])


def predict_in_fresh_process(
    folder: Path, images: list[str], features_ND: Features | None = None
) -> tuple[pd.DataFrame, Features]:
    """Predictions by the code of the package, in a process that cannot import this project.

    Args:
        features_ND: predict from these, and also return the features of the images.
    """
    code = next(path.name for path in (folder / "code").iterdir())
    program = (
        "import json, sys, pathlib\n"
        "import numpy as np\n"
        "sys.modules['graft'] = None\n"  # an editable install would have them found
        f"from {code}.register.serving import ImageClassifier\n"
        "model, asked = ImageClassifier(pathlib.Path(sys.argv[1])), json.load(sys.stdin)\n"
        "images = [pathlib.Path(name) for name in asked['images']]\n"
        "given = None if asked['features'] is None else np.array(asked['features'], np.float32)\n"
        "predictions = model.predict(images) if given is None else model.answers(given)\n"
        "features = [] if given is None else model.features(images).tolist()\n"
        "print(json.dumps({'predictions': predictions, 'features': features}))\n"
    )
    asked = {
        "images": [str(Path(image).resolve()) for image in images],
        "features": None if features_ND is None else features_ND.tolist(),
    }
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(folder.resolve())],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=folder / "code",
    )
    if done.returncode:
        raise GraftError(
            "the packaged model cannot predict in a fresh process",
            got=(done.stderr.strip() or "no message").splitlines()[-1],
            todo="run the stage again; if it fails again, report it with this message",
        )
    answered = json.loads(done.stdout.splitlines()[-1])
    return pd.DataFrame(answered["predictions"]), np.array(answered["features"], np.float32)


def _compare(
    found: pd.DataFrame, expected: pd.DataFrame, pack: FeatureSet, tolerance: float, threshold: float | None = None
) -> float:
    """The largest difference of a probability, of a number in standard deviations, or of a score in thresholds."""
    if pack.task == ANOMALY:
        got = "a score that differs by {} of the threshold, for {}"
        off_NK = (found[["score"]].to_numpy() - expected[["score"]].to_numpy()) / max(threshold or 0.0, TINY)
    elif pack.task == RECONSTRUCTION:
        got, off_NK = "a mean that differs by {}, for {}", found[["value"]].to_numpy() - expected[["value"]].to_numpy()
    elif pack.task == "regression":
        got, deviation = "a number that differs by {} standard deviations, for {}", _deviation(pack)
        off_NK = (found[["value"]].to_numpy() - expected[["predicted"]].to_numpy()) / deviation
    else:
        got = "a probability that differs by {}, for {}"
        p_NK = np.array([[row[name] for name in pack.classes] for row in found["probabilities"]])
        off_NK = p_NK - expected[[f"p_{name}" for name in pack.classes]].to_numpy()
    what = "the packaged model does not predict the same as evaluate"
    return _largest(np.abs(off_NK).max(axis=1), tolerance, what, got, expected)
