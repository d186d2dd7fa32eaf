"""head: what is trained on the frozen features; which candidate, images that were held out decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..common.files import whole_folder
from ..common.heads import Head
from ..common.manifest import Task, write_table
from ..common.pack import Pack, read_pack
from ..common.paths import Paths
from ..common.progress import say
from ..common.record import Record
from .choice import Choice, choose, train
from .params import HeadParams
from .search import Tried


def run(params: HeadParams, paths: Paths) -> Record:
    """Walks the grid, chooses a candidate by held-out images, and trains it again on all that may be learned from."""
    pack = read_pack(paths.features)
    choice = choose(pack, params, paths.tmp)
    _warn(choice, params)
    settings = choice.found.chosen.settings
    final = choice.head
    if params.refit:
        final = train(choice.kind, settings, pack, pack.rows("train", "val"), params, paths.tmp)
    _write(choice, final, pack, paths)
    return _record(choice, pack, paths)


def _warn(choice: Choice, params: HeadParams) -> None:
    tried, best = choice.found.tried, choice.found.best
    if "l2" not in tried[best].settings or len(tried) == 1:
        return
    if len(tried) == best + 1:
        say(f"head: the weakest strength tried, {params.l2_min:g}, is the best; try a smaller `head.l2_min`")
    if best == 0:
        say(
            f"head: the strongest strength tried, {params.l2_max:g}, is the best; "
            "try a larger `head.l2_max`, or the features tell little of the labels"
        )


def _write(choice: Choice, final: Head, pack: Pack, paths: Paths) -> None:
    """head.*: the head; selected.*: the same candidate trained without validation images, from which fine-tuning
    starts; validation.parquet: what the candidate says of images that were held out from it."""
    settings = choice.found.chosen.settings
    with whole_folder(paths.head) as folder:
        final.save(folder, "head", **settings)
        choice.head.save(folder, "selected", **settings)
        write_table(_held_out(choice, pack), folder / "validation.parquet")
    with whole_folder(paths.plots("head")) as folder:
        rows = [_row(number, tried, pack.task) for number, tried in enumerate(choice.found.tried)]
        pd.DataFrame(rows).to_csv(folder / "path.csv", index=False)


def _held_out(choice: Choice, pack: Pack) -> pd.DataFrame:
    """image_id, label, the fold in which the image was held out, and p_0 ... p_K-1, or `predicted` for a number."""
    names = [f"p_{k}" for k in range(len(pack.classes))] or ["predicted"]
    table = pack.index.iloc[choice.held][["image_id", "label"]].reset_index(drop=True)
    columns = dict(zip(names, choice.found.output.T, strict=True))
    return table.assign(fold=choice.fold_M, **columns).iloc[np.argsort(choice.held)].reset_index(drop=True)


def _row(number: int, tried: Tried, task: Task) -> dict[str, float]:
    """A row of path.csv. `along` is where it is drawn: at log10 of the strength or of k, or at its number."""
    scale = tried.settings.get("l2") or tried.settings.get("k")
    return {
        "along": float(np.log10(scale)) if scale else float(number),
        **tried.settings,
        "train_loss": tried.train_loss,
        "val_loss": tried.score.loss,
        **_figures(tried, task),
        "iterations": tried.iterations,
        "converged": int(tried.converged),
    }


def _figures(tried: Tried, task: Task) -> dict[str, float]:
    if task == "regression":
        return {"val_rmse": tried.score.loss**0.5}
    return {"val_accuracy": tried.score.accuracy}


def _record(choice: Choice, pack: Pack, paths: Paths) -> Record:
    found, chosen = choice.found, choice.found.chosen
    metrics: dict[str, Any] = {
        **_figures(chosen, pack.task),
        **({} if pack.task == "regression" else {"val_log_loss": chosen.score.loss}),
        "train_loss": chosen.train_loss,
        **chosen.settings,
        "tried": len(found.tried),
        "iterations": sum(tried.iterations for tried in found.tried),
        "converged": all(tried.converged for tried in found.tried),
        "folds": len(set(choice.fold_M)) if choice.fold_M.any() else 0,
        "train_images": len(pack.rows("train")),
        "val_images": len(pack.rows("val")),
    }
    rows = [_row(number, tried, pack.task) for number, tried in enumerate(found.tried)]
    curves = {
        f"path_{name}": [(step, row[name]) for step, row in enumerate(rows)]
        for name in rows[0]
        if name not in ("along", "iterations", "converged")
    }
    return Record(
        metrics=metrics,
        facts={"kind": choice.kind},
        curves=curves,
        files=[paths.head / "head.json", paths.plots("head") / "path.csv"],
    )
