"""Occlusion maps: where an answer comes from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from projects import Project

from graft.flows.serving.loading import open_model
from graft.flows.serving.predict import predict
from graft.flows.serving.saliency import Explainer, occlusion_map, saliency
from graft.flows.serving.sources import Named
from graft.tasks.common.images.unreadable import UnreadableImage


class BrightCorner:
    """Sees the mean brightness of the upper left quarter; of two backbones the second one sees it at half the size."""

    eyes: BrightCorner

    def __init__(self, answer: str) -> None:
        self.eyes, self._answer = self, answer

    def look(self, pixels_E: Sequence[Any]) -> Any:
        return np.column_stack([self._mean(pixels_B) for pixels_B in pixels_E])

    def _mean(self, pixels_BHWC: Any) -> Any:
        height, width = pixels_BHWC.shape[1:3]
        return pixels_BHWC[:, : height // 4, : width // 4].mean(axis=(1, 2, 3)) / 255

    def answers(self, features_BD: Any) -> list[dict[str, Any]]:
        p_B = features_BD.mean(axis=1).tolist()
        if self._answer == "value":
            return [{"value": p} for p in p_B]
        if self._answer == "labels":
            return [{"labels": [], "probabilities": {"bright": p, "none": 0.0}} for p in p_B]
        return [{"label": "bright", "probabilities": {"bright": p}} for p in p_B]


@pytest.mark.parametrize("answer", ["label", "labels", "value"])
def test_the_map_shows_what_the_answer_depends_on(answer: str) -> None:
    pixels = [np.zeros((side, side, 3), np.uint8) for side in (64, 32)]
    for each in pixels:
        each[: len(each) // 4, : len(each) // 4] = 255

    map_HW = occlusion_map(BrightCorner(answer), pixels)  # type: ignore[arg-type]

    assert map_HW.shape == (64, 64)
    assert map_HW[:8, :8].min() > 0.6
    assert map_HW[40:, 40:].max() == 0


def test_a_plain_image_has_no_region_that_matters() -> None:
    assert not occlusion_map(BrightCorner("label"), [np.full((32, 32, 3), 90, np.uint8)]).any()  # type: ignore[arg-type]


def test_a_packaged_model_explains_its_answer(finished: Project, tmp_path: Path) -> None:
    files = sorted((finished.root / "data" / "raw" / "red").glob("*.png"))[:2]
    with open_model("package", finished.root) as model:
        explainer = Explainer(model.classifier, tmp_path / "maps")
        for answer in predict(model.classifier, [Named("../red/" + file.name, file) for file in files]):
            explainer.take(answer)
        with pytest.raises(UnreadableImage):
            saliency(model.classifier, b"no image")

    made = sorted((tmp_path / "maps").rglob("*.png"))
    assert [file.relative_to(tmp_path / "maps").as_posix() for file in made] == ["red/000.png", "red/001.png"]
    assert Image.open(io.BytesIO(made[0].read_bytes())).mode == "RGB"
