"""Files beside shards: from seconds to the table, and images that are the same in each run."""

from __future__ import annotations

from pathlib import Path

from bench import scale


def test_the_table_tells_how_many_times_as_fast_shards_are() -> None:
    def steps(by: float) -> dict[str, dict[str, float]]:
        names = ("import", "dvc push", "clone and pull", "reading")
        return {name: {"seconds": 2 * by, "processor_seconds": by} for name in names}

    cached = {"cache_hits": 1000, "images_per_second": 0.0}
    features = {form: {"features": {"images_per_second": rate}} for form, rate in (("files", 90.0), ("shards", 100.0))}
    found = {"images": 1000, "forms": {"files": steps(8), "shards": steps(2)}, "features": features, "found": cached}
    machine = {"processor": "one", "family_model_stepping": "1/2/3", "cores": 2, "flags": [], "memory_gib": 4}
    machine |= {"system": "Linux", "load_before": 0.1}

    told = scale.text({"date": "today", "machine": machine, "sizes": [found]})

    assert scale.ratios(found)["import"] == [4, 4]
    assert "| import, dvc push, clone and pull | 48.0 | 12.0 | 24.0 | 6.0 | 4.0 | 4.0 |" in told
    assert "90 from files, 100 from shards. After `graft shard`, 1,000 of 1,000" in told


def test_the_same_number_draws_the_same_images(tmp_path: Path) -> None:
    one, two = (scale.draw(tmp_path / name, 12) for name in ("one", "two"))

    files = sorted(file.relative_to(one) for file in one.rglob("*.png"))
    assert len(files) == 12
    assert len({file.parent for file in files}) == scale.CLASSES
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)
