"""A project, as a notebook or a script sees it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.tasks.common.core.paths import Paths, find_root

from .commands import run_command

if TYPE_CHECKING:  # a method loads what it needs
    import pandas as pd

    from .findings import Audit, Status
    from .images import Given
    from .model import Model, Predictions
    from .results import Features, Report


def open_project(folder: str | Path = ".") -> Project:
    """Opens a project.

    Args:
        folder: with dvc.yaml and params.yaml, or one below it.

    Raises:
        GraftError: it is not in a project.
    """
    return Project(find_root(Path(folder)))


@dataclass(frozen=True)
class Project:
    """A Graft project. Nothing is kept in memory: every method reads the files as they are at that moment.

    A user error is a `GraftError` with the text that the command line prints.

    Attributes:
        root: the folder of dvc.yaml.
    """

    root: Path

    @property
    def params(self) -> dict[str, dict[str, Any]]:
        """Section -> parameter -> value, checked, with defaults for what params.yaml leaves out.

        Raises:
            GraftError: params.yaml is wrong.
        """
        from ..runtime.params import load_params

        return {name: section.model_dump() for name, section in load_params(Paths(self.root).params).sections().items()}

    def manifest(self) -> pd.DataFrame:
        """One row per image, as the stage `preprocess` lists them: see "Files and columns".

        Raises:
            GraftError: the stage has not run.
        """
        from graft.tasks.common.data.manifest import read_manifest

        return read_manifest(Paths(self.root).manifest)

    def features(self, split: str | None = None) -> Features:
        """The features of all images, or of a split, with their labels.

        Args:
            split: `train`, `val` or `test`.

        Raises:
            GraftError: the stage `features` has not run, or there is no such split.
        """
        from graft.tasks.common.data.feature_set import read_feature_set

        from .results import Features

        return Features.of(read_feature_set(Paths(self.root).features), split)

    def model(self, wanted: str | int = "package") -> Model:
        """A loaded model, for more than one call of `predict`. Its files are compared with the hash that DVC, git or
        the ledger keeps before anything of it is loaded.

        Args:
            wanted: `package` for models/package, or an alias or a version of the registered model.

        Raises:
            GraftError: there is no such model, or its files are not those that were made.
        """
        from .model import load_model

        return load_model(self.root, str(wanted))

    def predict(
        self, images: Given | Iterable[Given], model: str | int = "package", *, maps: bool = False
    ) -> Predictions:
        """Predicts images with a model, which is loaded for this call: see `model` and `Model.predict`.

        Args:
            images: a path, a folder, the bytes of a file, a PIL image, an array of uint8 with shape (H, W) or
                (H, W, C), or several of these.
            model: as `wanted` of `model`.
            maps: also give `maps`, which say where images are anomalous; for a model for anomaly.

        Raises:
            GraftError: there are no images, one cannot be read, there is no such model, or it has no maps.
        """
        return self.model(model).predict(images, maps=maps)

    def report(self) -> Report:
        """The results of the last run.

        Raises:
            GraftError: the pipeline has not run to its end.
        """
        from .results import Report

        return Report.of(self.root)

    def audit(self) -> Audit:
        """The findings of the stage `audit`.

        Raises:
            GraftError: the stage has not run.
        """
        from .findings import Audit

        return Audit.of(self.root)

    def status(self) -> Status:
        """What a run would do, and why. Nothing is run.

        Raises:
            GraftError: params.yaml, dvc.yaml or dvc.lock cannot be read.
        """
        from .findings import Status

        return Status.of(self.root)

    def repro(self, *words: str) -> None:
        """Brings stages up to date, as `graft repro WORDS` does, in a process of its own, and prints what it prints.

        Args:
            words: stages and options of `dvc repro`; nothing for all stages.

        Raises:
            GraftError: a stage failed. What was finished before is kept.
        """
        run_command(self.root, "repro", *words)

    def run(self) -> None:
        """Runs the flow `retrain` once, as `graft run` does, in a process of its own, and prints what it prints.

        Raises:
            GraftError: a step failed, or the run was cancelled.
        """
        run_command(self.root, "run")

    def _repr_html_(self) -> str:
        from . import display

        status = self.status()
        return display.table(f"Graft project {self.root.name}", [], [("status", repr(status))])
