"""`graft trace`: from a model to all that it was made of, and from an image, data or a commit to the models."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from projects import ROOT, draw, made_once, wait_for

from graft.flows.lineage.sections import sections
from graft.flows.lineage.trace import trace
from graft.flows.lineage.trace_page import lineage_page
from graft.flows.lineage.trace_text import lines
from graft.flows.registry import ledger
from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import md5, read_json
from graft.tasks.common.core.paths import STAGES
from graft.tasks.common.data.manifest import counts

if TYPE_CHECKING:
    from projects import Project, Rerun


def grow(finished: Project, root: Path) -> None:
    """A second version, of more images; one file of them is rejected, and one image is another under the same name."""
    project = finished.copy(root)
    for number in range(14, 18):
        draw(root / "data" / "raw" / "red" / f"{number:03}.png", 0, number)
    (root / "data" / "raw" / "red" / "broken.png").write_bytes(b"no image")
    draw(root / "data" / "raw" / "red" / "000.png", 0, 500)
    project.set("preprocess", max_rejected=3.0)
    project.dvc("add", "data/raw")
    project.git("commit", "--all", "--quiet", "--message", "more images")
    project.repro()
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    project.git("commit", "--all", "--quiet", "--message", "second run")


@pytest.fixture(scope="module")
def grown(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project that has run again with more images. Only to be looked at, but for tags in MLflow."""
    folder, _ = made_once(tmp_path_factory, "grown", lambda root: grow(finished, root))
    return type(finished)(folder)


def manifest(project: Project) -> pd.DataFrame:
    return pd.read_parquet(project.root / "data" / "manifest" / "manifest.parquet")


def image_of(project: Project, split: str) -> pd.Series[Any]:
    rows = manifest(project)
    return rows[rows["split"] == split].iloc[0]


def forget_manifest(project: Project) -> None:
    """Takes the list of images from DVC's cache."""
    digest = project.lock()["data/manifest"]
    (project.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink()


def forget_memory(project: Project) -> None:
    """Takes away what earlier questions, of the project that this is a copy of, have left."""
    shutil.rmtree(project.root / ".graft" / "cache" / "lineage", ignore_errors=True)


def delete_preprocess_run(project: Project) -> None:
    project.mlflow().delete_run(project.json("runs/preprocess.json")["run_id"])


def lose_list(project: Project) -> None:
    """Takes the list of images from this machine and from MLflow."""
    forget_memory(project)
    forget_manifest(project)
    delete_preprocess_run(project)


# From a model


def test_a_version_tells_all_that_it_was_made_of(finished: Project) -> None:
    told = trace(finished.root, "champion")

    assert (told["kind"], told["name"], told["version"]) == ("model", "graft", "1")
    assert told["aliases"] == ["challenger", "champion"]
    assert told["data"]["raw"] == trace(finished.root, "1")["data"]["raw"] != ""
    assert told["data"]["classes"] == counts(manifest(finished))
    assert (told["data"]["images"], told["data"]["exact"]) == (42, True)
    assert told["code"]["commit"] == finished.git("rev-parse", "HEAD~")
    assert told["code"]["changed"] == []
    assert told["backbone"]["weights_sha256"] == finished.json("models/package/package.json")["weights_sha256"]
    assert [stage["stage"] for stage in told["stages"]] == list(STAGES)
    assert told["parameters"]["head"]["strengths"] == "7"
    assert told["environment"]["packages"].keys() >= {"torch", "timm", "openvino"}
    assert told["test"]["accuracy"] == finished.json("metrics/evaluate.json")["accuracy"]


def test_a_version_has_many_names(finished: Project) -> None:
    names = ("graft@champion", "graft/1", "1", "challenger")
    told = [trace(finished.root, name) for name in names]

    assert {one["register_run_id"] for one in told} == {finished.json(".graft/registration.json")["run_id"]}


def test_of_stages_that_were_reused_the_earlier_runs_are_told(rerun: Rerun) -> None:
    told = trace(rerun.root, "graft/2")

    states = {stage["stage"]: stage["state"] for stage in told["stages"]}
    assert {stage for stage, state in states.items() if state == "ran"} == set(rerun.ran)
    assert states["preprocess"] == "reused"
    assert told["parameters"]["head"]["l2_max"] == "0.5"
    assert told["data"]["images"] == 42


def test_code_that_nobody_committed_is_named(project: Project) -> None:
    shutil.copytree(ROOT / "tasks", project.root / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (project.root / "tasks" / "head" / "__init__.py").write_text('"""Other code."""\n', encoding="utf-8")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "other code")
    project.mlflow().set_model_version_tag("graft", "1", "git.result", project.git("rev-parse", "HEAD"))

    told = trace(project.root, "1")

    assert told["code"]["changed"] == ["tasks/head"]
    assert any("uncommitted changes: tasks/head" in line for line in lines(told))


def test_a_run_is_found_by_its_first_digits_and_by_those_of_its_stages(finished: Project) -> None:
    runs = finished.json("runs/head.json")

    told = [trace(finished.root, digits) for digits in (runs["parent_run_id"][:8], runs["run_id"][:12])]

    assert {one["parent_run_id"] for one in told} == {runs["parent_run_id"]}
    assert [one["stage"] for one in told] == ["", "head"]
    assert all([use["version"] for use in one["versions"]] == ["1"] for one in told)


def test_the_ledger_says_what_it_replaced_and_what_replaced_it(rerun: Rerun, tmp_path: Path) -> None:
    project = rerun.copy(tmp_path / "project")
    enter(project, "first", "1", "")
    enter(project, "promoted", "2", "1")
    enter(project, "refused", "1", "2")

    first, second = trace(project.root, "1")["history"], trace(project.root, "2")["history"]

    assert (first["replaced"], first["replaced_by"]["version"]) == (None, "2")
    assert (second["replaced"]["previous"], second["replaced_by"]) == ("1", None)
    assert [entry["what"] for entry in second["entries"]] == ["promoted", "refused"]


def enter(project: Project, what: Any, version: str, previous: str) -> None:
    """An entry of the ledger, later than those before."""
    number = len(read_tags(project))
    entry = ledger.Entry(
        f"e{number}", f"2026-01-0{number + 1}T02:00:00+00:00", what, "graft", version, previous, "us", "because"
    )
    project.mlflow().set_model_version_tag("graft", version, f"graft.ledger.{entry.id}", json.dumps(asdict(entry)))


def read_tags(project: Project) -> list[str]:
    versions = project.mlflow().search_model_versions("name = 'graft'")
    return [key for version in versions for key in version.tags if key.startswith("graft.ledger.")]


# From an image


def test_an_image_is_found_by_path_md5_and_file(finished: Project, tmp_path: Path) -> None:
    image = image_of(finished, "test")
    file = Path(shutil.copy(finished.root / "data" / "raw" / image["path"], tmp_path / "renamed.png"))

    for name in (image["path"], image["image_id"], str(file)):
        (use,) = trace(finished.root, name)["versions"]
        assert (use["split"], use["label"], use["path"]) == ("test", image["label"], image["path"])
        assert (use["version"], use["learned"], use["exact"]) == ("1", False, True)


def test_a_refitted_head_has_learned_from_validation_images_too(finished: Project) -> None:
    learned = {}
    for split in ("train", "val", "test"):
        (use,) = trace(finished.root, image_of(finished, split)["path"])["versions"]
        learned[split] = use["learned"]

    assert learned == {"train": True, "val": True, "test": False}


def test_an_image_that_was_replaced_was_another_in_each_version(grown: Project, finished: Project) -> None:
    told = trace(grown.root, "red/000.png")

    ids = {use["version"]: use["image_id"] for use in told["versions"]}
    assert ids == {"2": md5(grown.root / "data/raw/red/000.png"), "1": md5(finished.root / "data/raw/red/000.png")}
    assert trace(grown.root, ids["1"])["versions"][0]["version"] == "1"


def test_an_image_that_came_later_is_in_the_later_version_alone(grown: Project) -> None:
    told = trace(grown.root, "red/014.png")

    assert [use["version"] for use in told["versions"]] == ["2"]
    assert told["asked_versions"] == 2


def test_a_rejected_image_says_why(grown: Project) -> None:
    for name in ("red/broken.png", md5(grown.root / "data" / "raw" / "red" / "broken.png")):
        (use,) = trace(grown.root, name)["versions"]
        assert (use["version"], use["split"], use["why"]) == ("2", "rejected", "not an image")


def test_a_file_that_no_model_has_seen_is_said_to_be_so(finished: Project, tmp_path: Path) -> None:
    draw(tmp_path / "new.png", 1, 900)

    told = trace(finished.root, str(tmp_path / "new.png"))

    assert (told["versions"], told["runs"], told["untold"]) == ([], [], [])


# From data and commits


def test_data_are_found_by_the_hash_of_images_or_of_any_output(grown: Project) -> None:
    raw = trace(grown.root, "2")["data"]["raw"]
    head = grown.lock()["models/head"]

    told = trace(grown.root, raw)
    assert (told["places"], [use["version"] for use in told["versions"]]) == (["data/raw"], ["2"])
    assert told["images"] == len(manifest(grown))
    assert trace(grown.root, head)["places"] == ["models/head"]
    assert trace(grown.root, head.removesuffix(".dir"))["hash"] == head


def test_a_commit_is_found_by_its_first_digits(grown: Project) -> None:
    second = grown.git("rev-parse", "HEAD~")

    told = trace(grown.root, second[:10])

    assert (told["commit"], [use["version"] for use in told["versions"]]) == (second, ["2"])


def test_what_is_not_recorded_is_refused(finished: Project) -> None:
    done = finished.graft_here("trace", "no/such.png", check=False)

    assert done.returncode == 2
    assert "graft@ALIAS" in done.stderr
    assert "challenger, champion" in done.stderr
    with pytest.raises(GraftError, match="has no version `7`"):
        trace(finished.root, "graft/7")


# Where the list of images comes from


def test_the_list_is_fetched_from_the_remote(project: Project, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.dvc("push")
    lose_list(project)

    assert trace(project.root, "1")["data"]["exact"]


def test_without_dvc_the_copy_in_mlflow_is_read(project: Project) -> None:
    forget_memory(project)
    forget_manifest(project)

    told = trace(project.root, "1")["data"]

    assert (told["exact"], told["classes"]) == (True, counts(manifest(project)))


def test_a_list_is_remembered(project: Project) -> None:
    forget_memory(project)
    trace(project.root, "1")
    forget_manifest(project)
    delete_preprocess_run(project)

    assert trace(project.root, "1")["data"]["exact"]


def test_a_list_that_is_lost_leaves_what_the_package_remembers(project: Project) -> None:
    lose_list(project)

    (seen,) = trace(project.root, image_of(project, "train")["image_id"])["versions"]
    (held,) = trace(project.root, image_of(project, "test")["image_id"])["versions"]

    assert (seen["split"], held["split"]) == ("seen", "held out")
    assert not seen["exact"]
    assert "lost" in seen["why"]
    assert trace(project.root, "1")["data"]["splits"] == {"seen": 33, "held out": 9}


# How it is shown


def test_the_page_needs_no_network_and_no_script(grown: Project, tmp_path: Path) -> None:
    for what in ("champion", "red/000.png", trace(grown.root, "1")["data"]["raw"], "red/broken.png"):
        grown.graft_here("trace", what, "--page", str(tmp_path / "page.html"))
        page = (tmp_path / "page.html").read_text(encoding="utf-8")

        assert "<h1>" in page
        assert not re.search(r"<script|<link|<img|@import|url\(|src=", page)


def test_the_page_shows_what_people_wrote_as_text(rerun: Rerun) -> None:
    told = trace(rerun.root, "2")
    entry = {"at": "2026-01-01T02:00:00+00:00", "what": "promoted", "version": "2", "previous": "1", "by": "us"}
    told["history"]["entries"] = [{**entry, "why": "<b>better</b>"}]

    page = lineage_page(told, "2026-01-02T00:00:00+00:00")

    assert "&lt;b&gt;better&lt;/b&gt;" in page
    assert "<b>better</b>" not in page


def test_the_page_shows_class_names_and_addresses_as_text(finished: Project) -> None:
    told = trace(finished.root, "1")
    classes = told["data"]["classes"]
    told["data"]["classes"] = {"<script>red</script>": classes["red"], "a & b": classes["blue"]}
    told["prefect"] = {"flow_run_id": "run", "flow_run_url": "javascript:alert(1)"}

    page = lineage_page(told, "2026-01-02T00:00:00+00:00")

    assert '<td class="text">&lt;script&gt;red&lt;/script&gt;</td>' in page
    assert "a &amp; b" in page
    assert "<script" not in page
    assert "href" not in page


def test_text_and_page_have_the_same_facts(rerun: Rerun) -> None:
    told = trace(rerun.root, "2")

    text, page = "\n".join(lines(told)), lineage_page(told, "2026-01-02T00:00:00+00:00")

    cells = [cell.text for section in sections(told) for row in section.rows for cell in row if cell.text]
    assert len(cells) > 100
    assert [cell for cell in cells if cell not in text or escape(cell) not in page] == []


def test_columns_of_the_text_are_aligned(finished: Project) -> None:
    printed = list(lines(trace(finished.root, "1")))

    first = printed.index("Images") + 1
    assert printed[first : first + 5] == [
        "class       train  val  test",
        "blue            8    3     3",
        "green           8    3     3",
        "red             8    3     3",
        "all images     24    9     9",
    ]


def test_text_and_json_tell_the_same(grown: Project) -> None:
    document = json.loads(grown.graft_here("trace", "red/014.png", "--json").stdout)
    text = grown.graft_here("trace", "red/014.png").stdout

    assert document["versions"][0]["version"] == "2"
    assert "1 version of 2 had it." in text
    assert read_json(grown.root / ".graft" / "registration.json")["version"] == "2"
