"""What differs between two listings of data/raw, whose masks are no images of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from graft.flows.status.image_diff import ImageChanges, between

TILES = {
    "train/good/1.png": "a", "test/good/1.png": "b", "test/crack/1.png": "c", "test/crack/2.png": "d",
    "ground_truth/crack/1_mask.png": "e",
}  # fmt: skip


def test_an_image_with_another_mask_has_changed(tmp_path: Path) -> None:
    now = TILES | {"ground_truth/crack/1_mask.png": "f"}
    assert between(tmp_path, TILES, now, "anomaly") == ImageChanges(changed=1, changed_by_class={"crack": 1})


def test_an_image_that_gets_a_mask_has_changed(tmp_path: Path) -> None:
    now = TILES | {"ground_truth/crack/2_mask.png": "f"}
    assert between(tmp_path, TILES, now, "anomaly") == ImageChanges(changed=1, changed_by_class={"crack": 1})


def test_a_mask_is_not_counted_as_an_image(tmp_path: Path) -> None:
    now = TILES | {"test/crack/3.png": "g", "ground_truth/crack/3_mask.png": "h"}
    assert between(tmp_path, TILES, now, "anomaly") == ImageChanges(added=1, added_by_class={"crack": 1})


@pytest.mark.parametrize("task", ["anomaly", "classification"])
def test_only_anomaly_detection_takes_masks_from_a_table(tmp_path: Path, task: str) -> None:
    table = tmp_path / "data" / "raw" / "labels.csv"
    table.parent.mkdir(parents=True)
    table.write_text("path,label,mask\n1.png,good,\n2.png,hole,m.png\n", encoding="utf-8")
    listing = {"labels.csv": "0" * 32, "1.png": "a", "2.png": "b", "m.png": "c"}
    found = between(tmp_path, {}, listing, task)  # type: ignore[arg-type]
    assert found.added == (2 if task == "anomaly" else 3)
    assert found.added_by_class == {"good": 1, "hole": 1}
