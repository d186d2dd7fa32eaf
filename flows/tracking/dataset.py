"""The images as an MLflow dataset: name, counts and DVC's hash."""

from __future__ import annotations

import json
from typing import Any

from mlflow.data.dataset_source import DatasetSource
from mlflow.entities import Dataset

from graft.tasks.common.core.record import DatasetRecord

from ..versioning.git import GitState


class DvcDatasetSource(DatasetSource):  # type: ignore[misc]
    """Images under DVC: path, repository, commit and content hash.

    MLflow finds this class through the entry point `mlflow.dataset_source`, so that `mlflow.data.get_source` works.
    """

    def __init__(self, path: str, md5: str, commit: str, repository: str, url: str = "") -> None:
        self.path, self.md5, self.commit, self.repository, self.url = path, md5, commit, repository, url

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    def load(self, **kwargs: Any) -> str:
        """Fetches the images to a local folder (`out=` names it) with `dvc get` and returns the folder."""
        import subprocess

        from ..versioning.dvc import dvc_command

        out = str(kwargs.get("out", "raw"))
        words = ["get", self.repository, self.path, "--out", out, *(["--rev", self.commit] if self.commit else [])]
        subprocess.run(dvc_command(*words), check=True)
        return out

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> DvcDatasetSource:
        raise TypeError("a DVC source is made from a recorded run, not resolved from a path")

    def to_dict(self) -> dict[Any, Any]:
        facts = {"path": self.path, "md5": self.md5, "commit": self.commit, "repository": self.repository}
        return {"url": self.url, "dvc": facts}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> DvcDatasetSource:
        return cls(url=source_dict.get("url", ""), **source_dict["dvc"])


def dataset_entity(record: DatasetRecord, digest: str, git: GitState, root: str) -> Dataset:
    """The dataset that MLflow stores; `digest` is DVC's hash of data/raw.

    With a web address the source type is `http`, which MLflow's pages show as a link; without one it is `dvc`.
    """
    url = git.link("data/raw.dvc")
    source = DvcDatasetSource("data/raw", digest, git.commit, git.origin or root, url)
    return Dataset(
        name=record.name,
        digest=digest,
        source_type="http" if url else "dvc",
        source=json.dumps(source.to_dict()),
        schema=None,
        profile=json.dumps(record.profile),
    )
