"""The candidates of fine-tuning's decision: each a graph of a backbone with a head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .backbones.graph import Graph, backbone_graph, read_graph
from .backbones.spec import Spec
from .backbones.weights import check_same, fit_state, read_state, same_weights
from .core.files import read_json
from .core.paths import Paths
from .core.progress import progress
from .data.feature_set import FeatureSet
from .engines.openvino import Engine, Precision
from .heads.base import Head
from .heads.calibration import Calibration
from .heads.load import load_head, load_linear_head
from .images.transform import load

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Candidate:
    """A head, the graph that its features come from (None: the frozen backbones of the feature set), its calibration,
    and whether its weights were fitted to the validation images too, once these had chosen it."""

    name: str
    head: Head
    tuned: Graph | None
    calibration: Calibration
    refitted: bool

    def graphs(self, pack: FeatureSet, paths: Paths) -> list[Graph]:
        """The graph of each eye of the feature set, converted again if this machine does not have it."""
        return [self.tuned or frozen_graph(eye.fingerprint, paths) for eye in pack.eyes]

    def networks(self, pack: FeatureSet, paths: Paths) -> list[torch.nn.Module]:
        """The same in torch, which takes seconds to import: normalised float32 (B, C, H, W) to (B, D), in evaluation
        mode.

        Raises:
            WeightsError: the weights are missing or have changed.
        """
        return [self._network(eye.fingerprint, paths) for eye in pack.eyes]

    def _network(self, fingerprint: dict[str, Any], paths: Paths) -> torch.nn.Module:
        from .backbones import network

        spec = Spec.from_dict(fingerprint)
        source = same_weights(spec.backbone, spec.weights, spec.weights_sha256, paths.weights)
        made = network.create_again(spec, source)
        if self.tuned is not None:
            fit_state(made, read_state(paths.finetune / "network.safetensors"), f"the fine-tuned {spec.backbone}")
        return made.eval()

    def output(
        self, pack: FeatureSet, rows: npt.NDArray[np.int64], paths: Paths, precision: Precision
    ) -> npt.NDArray[np.float64]:
        """Probabilities (len(rows), K) before calibration, or numbers (len(rows), 1), for images of the feature set.
        Features of a frozen backbone are not computed again."""
        if self.tuned is None:
            return self.head.output(pack.matrix(rows))
        files = [paths.raw / path for path in pack.index["path"].iloc[rows]]
        image_ids = list(pack.index["image_id"].iloc[rows])
        transform = self.tuned.spec.transform
        with progress(f"evaluate: {self.name}", len(files)) as bar:
            parts = []
            for _, batch_BD in Engine(self.tuned.xml, precision).stream(
                lambda i: load(files[i], image_ids[i], transform, pack.reading), len(files)
            ):
                parts.append(batch_BD)
                bar.add(len(batch_BD))
        return self.head.output(np.concatenate(parts))


def read_candidates(paths: Paths) -> tuple[dict[str, Candidate], str]:
    """The candidates by name, and the name of the one that was chosen on validation."""
    decision = read_json(paths.finetune / "decision.json")
    found = {"head": Candidate("head", load_head(paths.head), None, *_told(paths.head))}
    if decision["ran"]:
        head, graph = load_linear_head(paths.finetune), read_graph(paths.finetune / "graph")
        found["finetune"] = Candidate("finetune", head, graph, *_told(paths.finetune))
    return found, decision["chosen"]


def _told(folder: Path) -> tuple[Calibration, bool]:
    """The calibration, and whether the head of the folder says that it was refitted."""
    return Calibration.load(folder), bool(read_json(folder / "head.json").get("refitted", False))


def frozen_graph(fingerprint: dict[str, Any], paths: Paths) -> Graph:
    """The graph with this fingerprint.

    Raises:
        WeightsError: the weights are missing or have changed.
    """
    spec = Spec.from_dict(fingerprint)
    source = same_weights(spec.backbone, spec.weights, spec.weights_sha256, paths.weights)
    graph = backbone_graph(spec.backbone, source, paths.cache, spec.form)
    check_same(spec, graph.spec.weights_sha256, source)
    return replace(graph, spec=replace(graph.spec, transform=spec.transform))  # with the crop of `features.crop`
