"""A small package of the task anomaly, and pictures for it: good ones are noise, defects have a bright square."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graft.tasks.common.backbones.graph import backbone_graph
from graft.tasks.common.backbones.weights import find_weights
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.patches import PatchesHead
from graft.tasks.common.images.reading import Reading
from graft.tasks.common.images.transform import load
from graft.tasks.common.maps.form import Wanted
from graft.tasks.common.maps.graph import MapSource
from graft.tasks.register.package import write_package
from graft.tasks.register.packaged_eyes import halved

GOOD, DEFECTS = 24, 4

SQUARE = slice(20, 34)
"""Of the rows and of the columns of a defect, in pictures of 60 x 90 pixels."""


def draw_picture(file: Path, number: int, *, defect: bool = False) -> Path:
    """Grey noise, 60 pixels high and 90 wide; a defect has a bright square."""
    pixels = np.random.default_rng(number).integers(80, 130, (60, 90, 3))
    if defect:
        pixels[SQUARE, SQUARE] = (250, 240, 40)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return file


def make_package(root: Path) -> None:
    """root/package, root/good and root/defect; a third of the good pictures are not in the bank."""
    good = [draw_picture(root / "good" / f"{number:02}.png", number) for number in range(GOOD)]
    for number in range(DEFECTS):
        draw_picture(root / "defect" / f"{number:02}.png", 100 + number, defect=True)
    paths = Paths(root)
    source = find_weights("test_efficientnet", "random", paths.weights)
    pooled = backbone_graph("test_efficientnet", source, paths.cache).showing("squash").spec
    maps = MapSource(pooled, Wanted("patches", channels=16), paths)
    graph, form = maps.graph(), maps.form
    loaded = [load(file, None, graph.spec.transform, Reading()) for file in good]
    maps_ND = halved(np.concatenate([Engine(graph.xml)(pixels[None]) for pixels in loaded]))
    (level,) = form.levels
    held_out = len(good) // 3
    bank_MC = form.patches(maps_ND[held_out:]).reshape(-1, level.channels)[::7]
    sizes: dict[str, Any] = {"channels": level.channels, "height": level.height, "width": level.width, "top": 3}
    learned = {"mean": bank_MC.mean(axis=0), "turn": np.eye(level.channels, dtype=np.float32), "classes": []}
    none = np.empty(0)
    bank = (bank_MC - learned["mean"]).astype(np.float16)
    score = np.sort(PatchesHead(bank, good=none, share=none, **learned, **sizes).output(maps_ND[:held_out])[:, 0])
    head = PatchesHead(bank, good=score, share=np.ones(held_out), **learned, **sizes)
    facts = {
        "name": "graft", "task": "anomaly", "predicts": ["score", "p_value", "anomalous"], "candidate": "head",
        "classes": [], "backbone": graph.spec.backbone, "weights": graph.spec.weights,
        "weights_sha256": graph.spec.weights_sha256, "fingerprint": "", "precision": "f32",
        "transform": asdict(graph.spec.transform), "reading": Reading().as_dict(), "maps": form.as_dict(),
    }  # fmt: skip
    (root / "package").mkdir()
    write_package(root / "package", [graph], head, Calibration(threshold=float(score[-1])), facts)
