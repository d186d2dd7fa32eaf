"""`graft cache`, on a project whose pipeline has run."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from projects import Project
from safetensors.numpy import load, save

from graft.flows.maintenance.feature_cache import list_cache
from graft.flows.runtime.params import load_params
from graft.tasks.common.core.files import digest, write_shared_json
from graft.tasks.common.core.paths import Paths
from graft.tasks.features import stage

CACHE = Path(".graft") / "cache"


def ls(project: Project) -> list[dict[str, object]]:
    return json.loads(project.graft_here("cache", "ls", "--json").stdout)


def compute(project: Project, **features: object) -> str:
    """Another fingerprint, as the current one; the stage's own function makes it."""
    project.set("features", **features)
    params = load_params(project.root / "params.yaml").features
    stage.run(params, Paths(project.root))
    return str(project.json("data/features/fingerprint.json")["digest"])


def flip(project: Project) -> Path:
    segment = next((project.root / CACHE).rglob("features/*/*.safetensors"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 4
    segment.write_bytes(content)
    return segment


def test_ls_tells_what_is_cached_and_who_uses_it(project: Project) -> None:
    (row,) = ls(project)

    assert row["fingerprint"] == project.json("data/features/fingerprint.json")["digest"]
    assert row["backbone"] == "test_efficientnet"
    assert (row["images"], row["segments"]) == (42, 1)
    assert row["used_by"] == ["data/features", "challenger", "champion"]
    assert "test_efficientnet" in project.graft_here("cache", "ls").stdout


def test_ls_says_that_a_killed_run_left_features_without_a_description(project: Project) -> None:
    (described,) = (project.root / CACHE / "features").glob("*/fingerprint.json")
    described.unlink()

    (row,) = ls(project)

    assert [row[key] for key in ("backbone", "what", "computed_by", "dtype")] == [None] * 4
    told = project.graft_here("cache", "ls").stdout
    assert "the run that computed them was interrupted" in told
    assert "?" not in told


def test_maps_are_named_by_their_form_and_used_by_the_features_of_the_project(tmp_path: Path) -> None:
    level = {"name": "blocks.2", "channels": 40, "height": 28, "width": 28}
    maps = {"digest": "b" * 32, "backbone": "resnet50", "maps": {"neck": "patches", "levels": [level]}}
    write_shared_json(tmp_path / CACHE / "features" / maps["digest"] / "fingerprint.json", maps)
    write_shared_json(tmp_path / "data/features/fingerprint.json", {"digest": "a" * 32, "maps": maps})

    (entry,) = list_cache(tmp_path, {})

    assert entry.row()["what"] == "maps (patches): 40 x 28 x 28"
    assert entry.used_by == ("data/features",)


def test_ls_of_a_project_without_a_cache_says_so(empty_project: Project) -> None:
    assert ls(empty_project) == []
    assert "empty" in empty_project.graft_here("cache", "ls").stdout


def test_verify_finds_every_segment_sound(project: Project) -> None:
    assert "every segment is intact" in project.graft_here("cache", "verify").stdout


def test_verify_names_a_segment_with_a_flipped_byte_and_the_next_run_computes_it_again(project: Project) -> None:
    segment = flip(project)
    before = project.lock()["data/features"]

    done = project.graft_here("cache", "verify", check=False)

    assert done.returncode == 1
    assert segment.relative_to(project.root).as_posix() in done.stdout
    forced = project.dvc("repro", "--force", "-s", "features")
    assert segment.name in forced.stderr
    assert project.json("metrics/features.json")["cache_misses"] == 42
    assert project.lock()["data/features"] == before


def test_verify_can_remove_what_is_damaged(project: Project) -> None:
    segment = flip(project)

    assert project.graft_here("cache", "verify", "--drop", check=False).returncode == 1
    assert not segment.exists()
    assert project.graft_here("cache", "verify").returncode == 0


def test_compact_merges_small_segments_and_the_next_run_misses_nothing(project: Project) -> None:
    (segment,) = (project.root / CACHE / "features").glob("*/*.safetensors")
    tensors = load(segment.read_bytes())
    segment.unlink()
    for start in range(0, len(tensors["ids"]), 10):
        content = save({name: np.ascontiguousarray(rows[start : start + 10]) for name, rows in tensors.items()})
        segment.with_name(f"{digest(content)}.safetensors").write_bytes(content)
    before, lock = int(str(ls(project)[0]["segments"])), project.lock()["data/features"]

    fewer = json.loads(project.graft_here("cache", "compact", "--json").stdout)

    assert fewer == {segment.parent.name: before - 1}
    assert ls(project)[0]["segments"] == 1
    assert "nothing to merge" in project.graft_here("cache", "compact").stdout
    project.dvc("repro", "--force", "-s", "features")
    assert project.json("metrics/features.json")["cache_misses"] == 0
    assert project.lock()["data/features"] == lock


def test_gc_removes_what_neither_the_project_nor_the_champion_uses(project: Project) -> None:
    first = str(ls(project)[0]["fingerprint"])
    second = compute(project, dtype="float16")  # the first is the champion's still
    third = compute(project, backbone="test_resnet")
    assert {row["fingerprint"] for row in ls(project)} == {first, second, third}

    would = json.loads(project.graft_here("cache", "gc", "--keep-champion", "--dry-run", "--json").stdout)
    assert [row["fingerprint"] for row in would] == [second]
    assert len(ls(project)) == 3

    project.graft_here("cache", "gc", "--keep-champion")
    assert {row["fingerprint"] for row in ls(project)} == {first, third}
    assert len(list((project.root / CACHE / "graphs").iterdir())) == 2

    project.graft_here("cache", "gc")
    assert [row["fingerprint"] for row in ls(project)] == [third]
    assert len(list((project.root / CACHE / "graphs").iterdir())) == 1


def test_gc_removes_the_graph_of_another_form_of_the_same_weights(project: Project) -> None:
    (used,) = (project.root / CACHE / "graphs").iterdir()
    other = Path(shutil.copytree(used, used.with_name("other"))) / "spec.json"
    spec = json.loads(other.read_text(encoding="utf-8"))
    other.write_text(json.dumps({**spec, "form": {**spec["form"], "output": "logits"}}), encoding="utf-8")
    compute(project, dtype="float16")

    project.graft_here("cache", "gc")

    assert list((project.root / CACHE / "graphs").iterdir()) == [used]


def test_gc_refuses_while_another_machine_may_rank_and_names_the_mark(project: Project) -> None:
    mark = project.root / ".graft" / "rankings" / "0.json"
    mark.parent.mkdir()
    mark.write_text(json.dumps({"process": "elsewhere:1:0"}), encoding="utf-8")

    done = project.graft_here("cache", "gc", check=False)

    assert done.returncode == 2
    assert str(mark) in done.stderr
    assert project.graft_here("cache", "gc", "--dry-run").returncode == 0


def test_gc_does_not_wait_for_a_rank_that_was_killed(project: Project) -> None:
    mark = project.root / ".graft" / "rankings" / "0.json"
    mark.parent.mkdir()
    mark.write_text(json.dumps({"process": f"{socket.gethostname()}:1:never"}), encoding="utf-8")

    project.graft_here("cache", "gc")

    assert not mark.exists()


def test_openvino_caches_no_compiled_graphs_which_it_would_not_verify(finished: Project) -> None:
    assert not list((finished.root / CACHE).rglob("*.blob"))


def test_gc_below_a_size_removes_the_longest_unused_first(project: Project) -> None:
    first = project.root / CACHE / "features" / str(ls(project)[0]["fingerprint"])
    compute(project, dtype="float16")
    os.utime(first / "fingerprint.json", (1, 1))

    assert "nothing to delete" in project.graft_here("cache", "gc", "--max-gb", "1").stdout
    project.graft_here("cache", "gc", "--max-gb", "0")

    assert [row["used_by"] for row in ls(project)] == [["data/features"]]


def test_gc_beside_a_run_that_has_no_features_yet_keeps_what_it_computes(project: Project) -> None:
    first = ls(project)[0]["fingerprint"]
    (project.root / "data" / "features").rename(project.root / "elsewhere")

    project.graft_here("cache", "gc")

    assert [row["fingerprint"] for row in ls(project)] == [first]


def test_ls_makes_no_store(empty_project: Project) -> None:
    ls(empty_project)

    assert not (empty_project.root / "mlflow.db").exists()


def test_gc_does_not_go_on_when_the_champions_features_are_not_known(empty_project: Project) -> None:
    done = empty_project.graft_here("cache", "gc", "--keep-champion", check=False)

    assert done.returncode == 2
    assert "the features of the model `champion` are not known" in done.stderr


@pytest.mark.parametrize("command", ["ls", "verify", "compact", "gc"])
def test_every_command_has_a_help_text(empty_project: Project, command: str) -> None:
    assert "--json" in empty_project.graft_here("cache", command, "--help").stdout
