"""Which images scikit-activeml would label, and which labels cleanlab suspects. In an environment of its own.

python -m bench.peers.choose_labels FOLDER      FOLDER has task.npz, see bench/labelling.py; writes chosen.json
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

Rows = npt.NDArray[np.int64]
Task = Any


def margin(task: Task, pool: Rows, seed: int) -> Rows:
    """The smallest margins of scikit-activeml, the first round at random."""
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import RandomSampling, UncertaintySampling

    x_ND, y_N = task["x"][pool], task["y"][pool]
    first, then = RandomSampling(random_state=seed), UncertaintySampling("margin_sampling", random_state=seed)

    def ask(known_N: npt.NDArray[np.float64], count: int) -> Rows:
        labelled = int(np.isfinite(known_N).sum())
        if not labelled:
            return np.asarray(first.query(x_ND, known_N, batch_size=count))
        model = LogisticRegression(C=1 / (labelled * float(task["l2"])), max_iter=200)
        clf = SklearnClassifier(model, classes=np.unique(y_N), random_state=seed)
        return np.asarray(then.query(x_ND, known_N, clf, batch_size=count))

    return pool[_replay(y_N, task, ask)]


def typiclust(task: Task, pool: Rows, seed: int) -> Rows:
    from skactiveml.pool import TypiClust

    x_NR, y_N = task["axes"][pool], task["y"][pool]
    strategy = TypiClust(random_state=seed)
    return pool[_replay(y_N, task, lambda known_N, count: np.asarray(strategy.query(x_NR, known_N, batch_size=count)))]


def _replay(y_N: Rows, task: Task, ask: Any) -> Rows:
    """The order in which images get their label, in rounds."""
    known_N, order = np.full(len(y_N), np.nan), []
    while len(order) < int(task["most"]):
        found = ask(known_N, min(int(task["round"]), int(task["most"]) - len(order)))
        known_N[found] = y_N[found]
        order += list(found)
    return np.array(order, np.int64)


def suspects(task: Task) -> list[int]:
    """cleanlab's label issues, the most suspicious first, from probabilities held out in five folds."""
    from cleanlab.filter import find_label_issues

    given = task["given"]
    model = LogisticRegression(C=1 / (len(given) * float(task["l2"])), max_iter=200)
    p_NK = cross_val_predict(model, task["x"], given, cv=5, method="predict_proba")
    found = find_label_issues(given, p_NK, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(row) for row in found]


def main(folder: Path) -> None:
    warnings.filterwarnings("ignore")
    task = np.load(folder / "task.npz")
    orders = {
        name: [choose(task, pool, seed).tolist() for seed, pool in enumerate(_pools(task))]
        for name, choose in {"skactiveml_margin": margin, "skactiveml_typiclust": typiclust}.items()
    }
    found = {
        "orders": orders,
        "suspects": suspects(task),
        "versions": {name: version(name) for name in ("scikit-activeml", "cleanlab")},
    }
    (folder / "chosen.json").write_text(json.dumps(found), encoding="utf-8")


def _pools(task: Task) -> list[Rows]:
    """The images that are not for test, of each seed."""
    return [np.flatnonzero(~test_N) for test_N in task["test"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
